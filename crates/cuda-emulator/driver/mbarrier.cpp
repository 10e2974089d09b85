#include "mbarrier.h"

#include <algorithm>
#include <cstring>

#include "scheduler.h"

#define DEVICE_API extern "C" __attribute__((visibility("default")))

namespace emulator {

namespace {

constexpr unsigned most_arrivals = (1 << 20) - 1;
constexpr int64_t most_bytes = (1 << 20) - 1;
// Neither zeros nor poison look like a barrier.
enum Mark : uint64_t { Made = 1, Fenced = 2 };

// All that is known of a barrier lies in its eight bytes, so that one that is written over is no barrier any more.
struct State {
  uint64_t parity : 1;  // of the phase that is not over yet
  uint64_t arrivals : 20, pending : 20;
  int64_t bytes : 21;  // announced and not there; below 0 if they came first
  uint64_t mark : 2;
};
static_assert(sizeof(State) == 8);

struct Waiter {
  Block *block;
  unsigned barrier, parity;
  Thread *thread;
};
std::vector<Waiter> waiters;

// Made and not fenced yet, by this thread.
struct Fresh {
  Thread *by;
  unsigned barrier;
};
std::vector<Fresh> fresh;

State &at(Block &block, unsigned barrier, const char *file, int line) {
  auto *state = reinterpret_cast<State *>(gang.shared_at(block, barrier, sizeof(State)));
  if (!state || barrier % 8) gang.fail("an mbarrier outside shared memory, or misaligned", file, line);
  if (state->mark != Made && state->mark != Fenced) gang.fail("no mbarrier.init was here", file, line);
  return *state;
}

// The phase may be over: then the next one begins.
void perhaps_turn(Block &block, unsigned barrier, State &state) {
  if (state.pending || state.bytes) return;
  const unsigned over = state.parity;
  state.parity ^= 1;
  state.pending = state.arrivals;
  size_t kept = 0;
  for (const Waiter &waiter : waiters) {
    if (waiter.block == &block && waiter.barrier == barrier && waiter.parity == over)
      gang.make_ready(waiter.thread);
    else
      waiters[kept++] = waiter;
  }
  waiters.resize(kept);
  gang.progress();
}

void arrive(Block &block, unsigned barrier, unsigned bytes, const char *file, int line) {
  State &state = at(block, barrier, file, line);
  if (state.pending == 0) gang.fail("more have arrived at the mbarrier than it was made for", file, line);
  if (state.bytes + int64_t(bytes) > most_bytes) gang.fail("an mbarrier counts less than 1 MiB", file, line);
  state.bytes += bytes;
  state.pending--;
  perhaps_turn(block, barrier, state);
}

}  // namespace

void complete_bytes(Block &block, unsigned barrier, unsigned bytes) {
  State &state = at(block, barrier, nullptr, 0);
  state.bytes -= bytes;
  perhaps_turn(block, barrier, state);
}

void check_mbarrier(Block &block, unsigned barrier, const char *file, int line) {
  if (at(block, barrier, file, line).mark != Fenced)
    gang.fail("the mbarrier is not known outside its block: fence.mbarrier_init is missing", file, line);
}

void forget_mbarriers() {
  waiters.clear();
  fresh.clear();
}

}  // namespace emulator

using namespace emulator;

DEVICE_API void emulator_mbarrier_init(void *barrier, unsigned arrivals, const char *file, int line) {
  const unsigned address = gang.shared_address(barrier);
  if (!address || address % 8) gang.fail("mbarrier.init outside shared memory, or misaligned", file, line);
  if (arrivals == 0 || arrivals > most_arrivals) gang.fail("an mbarrier for so many arrivals", file, line);
  State state = {};
  state.arrivals = state.pending = arrivals;
  state.mark = Made;
  memcpy(barrier, &state, sizeof state);
  fresh.push_back({gang.current, address});
}

DEVICE_API void emulator_mbarrier_fence() {
  size_t kept = 0;
  for (const Fresh &made : fresh) {
    if (made.by == gang.current)
      at(*gang.current->block, made.barrier, nullptr, 0).mark = Fenced;
    else
      fresh[kept++] = made;
  }
  fresh.resize(kept);
}

DEVICE_API void emulator_mbarrier_arrive(void *barrier, unsigned bytes, const char *file, int line) {
  gang.come_to("mbarrier.arrive", gang.shared_address(barrier), file, line);
  arrive(*gang.current->block, gang.shared_address(barrier), bytes, file, line);
  gang.perhaps_let_others_run();
}

DEVICE_API void emulator_mbarrier_arrive_cluster(void *barrier, unsigned rank, const char *file, int line) {
  const unsigned address = gang.shared_address(barrier);
  gang.come_to("mbarrier.arrive", address, file, line);
  Block &block = gang.resident(rank, file, line);
  check_mbarrier(block, address, file, line);
  arrive(block, address, 0, file, line);
  gang.perhaps_let_others_run();
}

DEVICE_API void emulator_mbarrier_wait(void *barrier, unsigned parity, const char *file, int line) {
  const unsigned address = gang.shared_address(barrier);
  Block &block = *gang.current->block;
  gang.come_to("mbarrier.try_wait", address, file, line);
  if (at(block, address, file, line).parity != (parity & 1)) return;
  waiters.push_back({&block, address, parity & 1, gang.current});
  gang.wait();
}
