// Runs the threads of a launch: each CUDA thread is a fiber, the blocks that must be resident together form a gang, and
// gangs run one after another on the thread that called the driver.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "../device/contract.h"
#include "async_copy.h"
#include "bulk_copy.h"
#include "fiber.h"
#include "wgmma.h"

namespace emulator {

constexpr unsigned warp_size = 32, barriers_per_block = 16;

struct Launch {
  const EmulatorKernel *kernel;
  void **arguments;
  dim3 grid, block;
  unsigned shared_bytes;      // dynamic
  unsigned gang;              // blocks that are resident together; divides the grid
  dim3 cluster;               // the shape of a gang that is a cluster, or (1, 1, 1)
  char *static_shared;        // the module's __shared__ variables
  size_t static_shared_bytes;
};

// Runs a launch to its end. Returns "" or a report of what went wrong.
std::string run(const Launch &launch);

// Random numbers that cost little: whatever happens at random throws dice at every turn of every thread. (splitmix64:
// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.)
class Dice {
 public:
  using result_type = uint32_t;
  explicit Dice(uint64_t seed = 0) : state_(seed) {}
  static constexpr uint32_t min() { return 0; }
  static constexpr uint32_t max() { return ~0u; }
  uint32_t operator()() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return uint32_t(z >> 32);
  }

 private:
  uint64_t state_;
};

// How the emulator orders what hardware leaves open. FERROGRAD_EMULATOR_SEED chooses it.
struct Schedule {
  // When asynchronous work happens: cp.async, and whatever is submitted to a stream.
  enum class Asynchrony { Eager, Random, Lazy } asynchrony = Asynchrony::Eager;
  bool shuffled = false;
  Dice random;

  // A number below `n`.
  unsigned below(unsigned n) { return unsigned(uint64_t(random()) * n >> 32); }
};
extern Schedule schedule;
// Sets the schedule from the variable's text: none, a number or "lazy".
bool set_schedule(const char *text);

struct Block;

struct Thread {
  uint3 index;
  unsigned id;  // in the block
  Block *block;
  Stack *stack;
  void *suspended;  // where it goes on
  enum class State { Fresh, Ready, Waiting, Exited } state;
  // Where it came to a collective or a barrier last, at which it may wait.
  const char *waits_at, *file;
  int line;
  unsigned detail;         // the mask of a collective, the number of a barrier
  EmulatorVotes votes;     // what the barrier gave
  AsyncCopies copies;
  BulkStores stores;
  bool acquired;           // a flag, of which the copy engine has not been told
  unsigned cluster_phase;  // in which it arrived at the cluster's barrier
};

// Threads of one warp that have come to a collective and wait for the rest of its mask.
struct Rendezvous {
  unsigned mask, arrived;
  const EmulatorCollective *operation;
};

struct Warp {
  unsigned exited;  // lanes; those that the block does not have count as exited
  unsigned pace;    // of several warps that could go on the one with the largest does
  std::vector<Rendezvous> open;
  void *parts[warp_size];
  MatrixProducts products;
};

struct Barrier {
  unsigned threads;  // that it waits for; 0: all that have not exited
  unsigned arrived, votes;
  const char *what;
  std::vector<Thread *> waiting;
};

struct Block {
  // Makes the threads of a block of these dimensions, unless they are there from the launch before.
  void shape(dim3 dims);

  uint3 index;
  unsigned rank;  // in the cluster
  dim3 shaped = {0, 0, 0};
  unsigned live;  // threads that have not exited
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Barrier barriers[barriers_per_block];
  unsigned open_barriers;  // a bit for each where a thread has arrived
  std::vector<unsigned char> arena;          // dynamic shared memory and the red zone behind it
  unsigned char *dynamic_shared;             // in the arena, aligned
  std::vector<unsigned char> static_shared;  // the statics' values while another block of the gang runs
  UnfencedWrites unfenced;
};

// The blocks that are resident, and which of their threads can run.
class Gang {
 public:
  // Makes the blocks of a launch, with memory that is kept from launch to launch.
  void prepare(const Launch &launch);
  // Runs the blocks from number `first` on, as many as the gang has.
  void run(uint64_t first);

  // The running thread has come to a place where it may have to wait.
  void come_to(const char *what, unsigned detail, const char *file, int line);
  // It waits there: it goes on when `make_ready` is called for it.
  void wait();
  void make_ready(Thread *thread) { ready_[ready_tail_++ & ready_mask_] = thread; }
  // The running thread lets others run first.
  void yield();
  // Ends the launch from within a thread; the report says where it stands, if that is given.
  [[noreturn]] void fail(const std::string &message, const char *file = nullptr, int line = 0);
  // Something happened that spinning threads may wait for.
  void progress() { idle_yields_ = 0; }
  // Behind what others may be waiting for: they may go on before this thread does anything more.
  void perhaps_let_others_run() {
    if (schedule.shuffled && schedule.below(4) == 0) yield();
  }
  size_t threads() const { return fresh_.size(); }
  const char *running() const { return launch_->kernel->name; }
  // Is this range shared memory of the running thread's block?
  bool is_shared(const void *address, size_t bytes) const;
  // The same place as a shared address, in any block; 0 if it is none. Static variables come first.
  unsigned shared_address(const void *address) const;
  // Where a range of shared addresses is in a block's memory; null if it is not there.
  unsigned char *shared_at(Block &block, unsigned address, size_t bytes);
  // A block that is resident with the running one; fails if there is none, or all of its threads have exited.
  Block &resident(unsigned rank, const char *file, int line);
  // The barrier of the cluster.
  void cluster_arrive(const char *file, int line);
  void cluster_wait(const char *file, int line);

  Thread *current = nullptr;  // null outside kernels
  bool faulted = false;       // by a signal, in this launch
  std::string failure;

 private:
  static void work();
  [[noreturn]] void leave();
  void go_on(void **from, bool fresh_first);
  // Which of those that are ready goes on, where chance rules.
  size_t choose();
  void something_may_happen();
  uint64_t number_of(uint64_t first, unsigned rank) const;
  void perhaps_open_cluster_barrier();
  void activate(Thread *thread);
  void exit_current();
  void reset(Block &block, uint64_t number);
  void check_end();
  void report_deadlock();

  const Launch *launch_ = nullptr;
  std::deque<Block> blocks_;  // at least the gang's; a deque, because threads point to their block
  Block *active_ = nullptr;  // whose static shared memory is in place
  unsigned cluster_arrived_ = 0, cluster_phase_ = 0;
  std::vector<Thread *> cluster_waiting_;
  std::vector<Thread *> fresh_;
  size_t next_fresh_ = 0;
  std::vector<Thread *> ready_;  // a ring
  size_t ready_head_ = 0, ready_tail_ = 0, ready_mask_ = 0;
  bool uneven_ = false;  // warps go at their own paces
  uint64_t idle_yields_ = 0;
  StackPool stacks_;
  Stack *working_ = nullptr;  // the stack of the fiber that starts
  void *main_ = nullptr;
};
extern Gang gang;

// A thread has exited: whoever waited only for it goes on.
void complete_without(Thread &exited);
// "kernel `k`, block (0, 0, 0), thread (1, 0, 0)".
std::string describe(const Thread &thread);

}  // namespace emulator
