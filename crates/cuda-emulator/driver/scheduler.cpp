#include "scheduler.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "faults.h"
#include "mbarrier.h"

extern "C" {
__attribute__((visibility("default"))) uint3 threadIdx, blockIdx;
__attribute__((visibility("default"))) dim3 blockDim, gridDim;
}

namespace emulator {

Gang gang;
Schedule schedule;

namespace {

constexpr size_t red_zone_bytes = 256, shared_alignment = 1024;
// Shared addresses begin behind what the system keeps for itself.
constexpr unsigned first_shared_address = 1024;
constexpr unsigned char poison = 0xFF, red_zone = 0xA7;
// Rounds in which every thread only lets the others run, before a launch counts as stuck.
constexpr uint64_t spins_before_giving_up = 20000;

std::string triple(uint3 v) {
  return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

unsigned volume(dim3 d) { return d.x * d.y * d.z; }

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

uint3 position(uint64_t number, dim3 in) {
  return {unsigned(number % in.x), unsigned(number / in.x % in.y), unsigned(number / in.x / in.y)};
}

}  // namespace

bool set_schedule(const char *text) {
  schedule = Schedule();
  if (!text || !*text) return true;
  if (!strcmp(text, "lazy")) {
    schedule.asynchrony = Schedule::Asynchrony::Lazy;
    return true;
  }
  char *end;
  unsigned long seed = strtoul(text, &end, 10);
  if (*end) return false;
  schedule.asynchrony = Schedule::Asynchrony::Random;
  schedule.shuffled = true;
  schedule.random = Dice(seed);
  return true;
}

void Block::shape(dim3 dims) {
  const unsigned count = volume(dims);
  if (threads.size() == count && shaped.x == dims.x && shaped.y == dims.y) return;
  shaped = dims;
  threads.resize(count);
  for (unsigned t = 0; t < count; t++) {
    threads[t].index = position(t, dims);
    threads[t].id = t;
    threads[t].block = this;
  }
  warps.resize((count + warp_size - 1) / warp_size);
}

void Gang::prepare(const Launch &launch) {
  launch_ = &launch;
  failure.clear();
  gridDim = launch.grid;
  blockDim = launch.block;
  if (blocks_.size() < launch.gang) blocks_.resize(launch.gang);
  fresh_.clear();
  for (unsigned b = 0; b < launch.gang; b++) {
    Block &block = blocks_[b];
    block.shape(launch.block);
    for (Thread &thread : block.threads) fresh_.push_back(&thread);
    block.arena.resize(launch.shared_bytes + red_zone_bytes + shared_alignment);
    uintptr_t start = reinterpret_cast<uintptr_t>(block.arena.data());
    block.dynamic_shared = block.arena.data() + (-start & (shared_alignment - 1));
    block.static_shared.resize(launch.gang > 1 ? launch.static_shared_bytes : 0);
  }
  size_t capacity = 1;
  while (capacity < fresh_.size()) capacity *= 2;
  ready_.resize(capacity);
  ready_mask_ = capacity - 1;
}

void Gang::reset(Block &block, uint64_t number) {
  const unsigned threads = unsigned(block.threads.size());
  block.index = position(number, launch_->grid);
  block.live = threads;
  block.open_barriers = 0;
  for (Barrier &barrier : block.barriers) barrier.arrived = 0, barrier.waiting.clear();
  for (Warp &warp : block.warps) {
    warp.exited = 0, warp.open.clear(), warp.products.forget();
    if (schedule.shuffled) warp.pace = schedule.random();
  }
  block.unfenced.forget();
  if (threads % warp_size) block.warps.back().exited = ~0u << threads % warp_size;
  memset(block.dynamic_shared, poison, launch_->shared_bytes);
  memset(block.dynamic_shared + launch_->shared_bytes, red_zone, red_zone_bytes);
  std::fill(block.static_shared.begin(), block.static_shared.end(), poison);
}

void Gang::run(uint64_t first) {
  for (unsigned b = 0; b < launch_->gang; b++) {
    reset(blocks_[b], number_of(first, b));
    blocks_[b].rank = volume(launch_->cluster) == 1 ? 0 : b;
  }
  copy_engine.forget();
  forget_mbarriers();
  cluster_arrived_ = cluster_phase_ = 0;
  cluster_waiting_.clear();
  if (launch_->static_shared_bytes) memset(launch_->static_shared, poison, launch_->static_shared_bytes);
  active_ = nullptr;
  if (schedule.shuffled) std::shuffle(fresh_.begin(), fresh_.end(), schedule.random);
  uneven_ = schedule.shuffled && schedule.below(2);
  next_fresh_ = ready_head_ = ready_tail_ = 0;
  idle_yields_ = 0;
  go_on(&main_, true);
  current = nullptr;
  if (failure.empty()) check_end();
  if (!failure.empty()) stacks_.reset();
}

// Blocks are numbered along x first; a cluster is a box of them.
uint64_t Gang::number_of(uint64_t first, unsigned rank) const {
  const dim3 &grid = launch_->grid, &cluster = launch_->cluster;
  if (volume(cluster) == 1) return first + rank;
  const dim3 clusters = {grid.x / cluster.x, grid.y / cluster.y, grid.z / cluster.z};
  const uint3 at = position(first / launch_->gang, clusters), in = position(rank, cluster);
  return at.x * cluster.x + in.x +
         uint64_t(grid.x) * (at.y * cluster.y + in.y + uint64_t(grid.y) * (at.z * cluster.z + in.z));
}

// A worker runs fresh threads one after another on its stack. When one of them has to wait, the stack stays with it
// and another worker takes over; so threads that never wait cost no switch.
void Gang::work() {
  Stack *stack = gang.working_;
  for (;;) {
    Thread *thread = gang.fresh_[gang.next_fresh_++];
    thread->stack = stack;
    thread->state = Thread::State::Ready;
    thread->copies.forget();
    thread->stores.forget();
    thread->acquired = false;
    gang.activate(thread);
    gang.launch_->kernel->call(gang.launch_->arguments);
    gang.exit_current();
    bool more = gang.next_fresh_ < gang.fresh_.size(), others = gang.ready_head_ != gang.ready_tail_;
    if (more && (!others || (schedule.shuffled && schedule.below(2)))) continue;
    gang.stacks_.give_back(stack);
    gang.leave();
  }
}

void Gang::leave() {
  void *nowhere;
  go_on(&nowhere, false);
  __builtin_unreachable();
}

void Gang::go_on(void **from, bool fresh_first) {
  bool fresh = next_fresh_ < fresh_.size();
  // When every thread waits, what they wait for is asynchronous, or will never come.
  while (!fresh && ready_head_ == ready_tail_ && copy_engine.complete_one()) continue;
  bool others = ready_head_ != ready_tail_;
  if (fresh && (fresh_first || !others || (schedule.shuffled && schedule.below(2)))) {
    working_ = stacks_.take();
    switch_to_new(from, working_, work);
  } else if (others) {
    if (schedule.shuffled) std::swap(ready_[ready_head_ & ready_mask_], ready_[choose() & ready_mask_]);
    Thread *next = ready_[ready_head_++ & ready_mask_];
    // What comes after it will be wanted soon: its stack is far from this one.
    if (ready_head_ != ready_tail_) __builtin_prefetch(ready_[ready_head_ & ready_mask_]->suspended);
    next->state = Thread::State::Ready;
    activate(next);
    // Who lets others run may be chosen itself; it is not suspended anywhere then.
    if (from != &next->suspended) switch_to(from, next->suspended);
  } else {
    switch_to(from, main_);
  }
}

// Where chance is fair to all, no warp gets far ahead of the others, and what only then goes wrong is never seen. So in every other
// gang some warps are faster than others, until a rare change of pace (as in S. Burckhardt et al. 2010, "A randomized scheduler with
// probabilistic guarantees of finding bugs").
size_t Gang::choose() {
  constexpr unsigned candidates = 6, change = 4096;
  auto any = [&] { return ready_head_ + schedule.below(unsigned(ready_tail_ - ready_head_)); };
  auto warp_of = [&](size_t place) -> Warp & {
    const Thread &thread = *ready_[place & ready_mask_];
    return thread.block->warps[thread.id / warp_size];
  };
  size_t best = any();
  if (!uneven_) return best;
  for (unsigned i = 1; i < candidates; i++) {
    const size_t other = any();
    if (warp_of(other).pace > warp_of(best).pace) best = other;
  }
  if (schedule.below(change) == 0) warp_of(best).pace = schedule.random();
  return best;
}

void Gang::activate(Thread *thread) {
  current = thread;
  threadIdx = thread->index;
  if (thread->block == active_) return;
  if (const size_t bytes = launch_->static_shared_bytes; bytes && launch_->gang > 1) {
    if (active_) memcpy(active_->static_shared.data(), launch_->static_shared, bytes);
    memcpy(launch_->static_shared, thread->block->static_shared.data(), bytes);
  }
  active_ = thread->block;
  blockIdx = active_->index;
}

void Gang::exit_current() {
  Thread &thread = *current;
  Block &block = *thread.block;
  Warp &warp = block.warps[thread.id / warp_size];
  if (const char *why = thread.stores.finish()) fail(why, thread.file, thread.line);
  thread.state = Thread::State::Exited;
  if (--block.live == 0 && copy_engine.loads_into(block))
    fail("exits before all that its block loads is there", thread.file, thread.line);
  warp.exited |= 1u << thread.id % warp_size;
  progress();
  if (block.open_barriers || !warp.open.empty()) complete_without(thread);
  perhaps_open_cluster_barrier();
}

// What happens at any time happens now, if the schedule's dice say so.
inline void Gang::something_may_happen() {
  if (schedule.asynchrony != Schedule::Asynchrony::Random) return;
  current->copies.perhaps_complete_some();
  current->stores.perhaps_complete_some();
  // A warp's products are one thing, not one for each lane.
  if (current->id % warp_size == 0) current->block->warps[current->id / warp_size].products.perhaps_complete_some();
  copy_engine.perhaps_complete_some();
}

void Gang::come_to(const char *what, unsigned detail, const char *file, int line) {
  current->waits_at = what, current->detail = detail, current->file = file, current->line = line;
  something_may_happen();
}

void Gang::wait() {
  Thread *self = current;
  self->state = Thread::State::Waiting;
  go_on(&self->suspended, false);
  something_may_happen();
}

void Gang::yield() {
  Thread *self = current;
  something_may_happen();
  if (idle_yields_ > fresh_.size()) copy_engine.complete_one();
  if (++idle_yields_ > spins_before_giving_up * fresh_.size())
    fail("spins for ever: no other thread changes what it waits for");
  make_ready(self);
  go_on(&self->suspended, true);
}

void Gang::fail(const std::string &message, const char *file, int line) {
  failure = describe(*current) + ": " + message;
  if (file) failure += std::string(" (") + file + ":" + std::to_string(line) + ")";
  void *nowhere;
  switch_to(&nowhere, main_);
  __builtin_unreachable();
}

bool Gang::is_shared(const void *address, size_t bytes) const {
  auto lies_in = [&](const void *start, size_t size) {
    size_t offset = size_t(static_cast<const char *>(address) - static_cast<const char *>(start));
    return offset <= size && bytes <= size - offset;
  };
  return lies_in(current->block->dynamic_shared, launch_->shared_bytes) ||
         lies_in(launch_->static_shared, launch_->static_shared_bytes);
}

unsigned Gang::shared_address(const void *address) const {
  const size_t in_static = size_t(static_cast<const char *>(address) - launch_->static_shared);
  if (in_static < launch_->static_shared_bytes) return unsigned(first_shared_address + in_static);
  const size_t in_dynamic = size_t(static_cast<const unsigned char *>(address) - current->block->dynamic_shared);
  if (in_dynamic >= launch_->shared_bytes) return 0;
  return unsigned(round_up(first_shared_address + launch_->static_shared_bytes, shared_alignment) + in_dynamic);
}

unsigned char *Gang::shared_at(Block &block, unsigned address, size_t bytes) {
  const size_t in_static = address - size_t(first_shared_address);
  if (in_static < launch_->static_shared_bytes) {
    if (bytes > launch_->static_shared_bytes - in_static) return nullptr;
    bool in_place = &block == active_ || launch_->gang == 1;
    return in_place ? reinterpret_cast<unsigned char *>(launch_->static_shared) + in_static
                    : block.static_shared.data() + in_static;
  }
  const size_t in_dynamic = address - round_up(first_shared_address + launch_->static_shared_bytes, shared_alignment);
  const bool inside = in_dynamic <= launch_->shared_bytes && bytes <= launch_->shared_bytes - in_dynamic;
  return inside ? block.dynamic_shared + in_dynamic : nullptr;
}

Block &Gang::resident(unsigned rank, const char *file, int line) {
  if (rank >= volume(launch_->cluster)) fail("the cluster has no block " + std::to_string(rank), file, line);
  if (volume(launch_->cluster) == 1) return *current->block;
  if (!blocks_[rank].live) fail("block " + std::to_string(rank) + " of the cluster has exited already", file, line);
  return blocks_[rank];
}

void Gang::cluster_arrive(const char *file, int line) {
  come_to("barrier.cluster.arrive", 0, file, line);
  current->cluster_phase = cluster_phase_;
  cluster_arrived_++;
  perhaps_open_cluster_barrier();
}

void Gang::cluster_wait(const char *file, int line) {
  come_to("barrier.cluster.wait", 0, file, line);
  if (current->cluster_phase != cluster_phase_) return;
  cluster_waiting_.push_back(current);
  wait();
}

// All threads that have not exited have come.
void Gang::perhaps_open_cluster_barrier() {
  unsigned live = 0;
  if (!cluster_arrived_) return;
  for (unsigned b = 0; b < launch_->gang; b++) live += blocks_[b].live;
  if (cluster_arrived_ < live) return;
  cluster_arrived_ = 0;
  cluster_phase_++;
  for (Thread *thread : cluster_waiting_) make_ready(thread);
  cluster_waiting_.clear();
  progress();
}

void Gang::check_end() {
  for (unsigned b = 0; b < launch_->gang; b++) {
    const Block &block = blocks_[b];
    if (block.live) return report_deadlock();
    const unsigned char *zone = block.dynamic_shared + launch_->shared_bytes;
    for (size_t i = 0; i < red_zone_bytes; i++) {
      if (zone[i] == red_zone) continue;
      failure = std::string("kernel `") + launch_->kernel->name + "`, block " + triple(block.index) +
                ": wrote behind its " + std::to_string(launch_->shared_bytes) +
                " bytes of dynamic shared memory, at byte " + std::to_string(launch_->shared_bytes + i);
      return;
    }
  }
}

// Threads that wait at the same place are told in one line.
void Gang::report_deadlock() {
  failure = std::string("deadlock in kernel `") + launch_->kernel->name + "`:";
  for (unsigned b = 0; b < launch_->gang; b++) {
    const Block &block = blocks_[b];
    if (!block.live) continue;
    failure += "\n  block " + triple(block.index) + ":";
    const size_t count = block.threads.size();
    for (size_t t = 0; t < count;) {
      const Thread &first = block.threads[t];
      auto alike = [&](const Thread &other) {
        if (first.state != other.state) return false;
        return first.state == Thread::State::Exited ||
               (first.waits_at == other.waits_at && first.line == other.line && first.detail == other.detail);
      };
      size_t end = t + 1;
      while (end < count && alike(block.threads[end])) end++;
      failure += "\n    thread " + triple(first.index);
      if (end > t + 1) failure += " to " + triple(block.threads[end - 1].index);
      if (first.state == Thread::State::Exited) {
        failure += " exited";
      } else {
        char detail[32];
        snprintf(detail, sizeof detail, "%#x", first.detail);
        failure += std::string(" waits at ") + first.waits_at + " " + detail + " (" + first.file + ":" +
                   std::to_string(first.line) + ")";
      }
      t = end;
    }
  }
}

std::string describe(const Thread &thread) {
  return std::string("kernel `") + gang.running() + "`, block " + triple(thread.block->index) + ", thread " +
         triple(thread.index);
}

std::string run(const Launch &launch) {
  catch_faults();
  gang.prepare(launch);
  const uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  const uint64_t gangs = blocks / launch.gang;
  std::vector<uint64_t> order;
  if (schedule.shuffled) {
    for (uint64_t g = 0; g < gangs; g++) order.push_back(g);
    std::shuffle(order.begin(), order.end(), schedule.random);
  }
  for (uint64_t g = 0; g < gangs && gang.failure.empty(); g++) gang.run((order.empty() ? g : order[g]) * launch.gang);
  return gang.failure;
}

}  // namespace emulator
