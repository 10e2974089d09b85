#include "scheduler.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "faults.h"

extern "C" {
__attribute__((visibility("default"))) uint3 threadIdx, blockIdx;
__attribute__((visibility("default"))) dim3 blockDim, gridDim;
}

namespace emulator {

Gang gang;
Schedule schedule;

namespace {

constexpr size_t red_zone_bytes = 256, shared_alignment = 1024;
constexpr unsigned char poison = 0xFF, red_zone = 0xA7;
// Rounds in which every thread only lets the others run, before a launch counts as stuck.
constexpr uint64_t spins_before_giving_up = 20000;

std::string triple(uint3 v) {
  return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

unsigned volume(dim3 d) { return d.x * d.y * d.z; }

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
  schedule.random.seed(unsigned(seed));
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
  for (Warp &warp : block.warps) warp.exited = 0, warp.open.clear();
  if (threads % warp_size) block.warps.back().exited = ~0u << threads % warp_size;
  memset(block.dynamic_shared, poison, launch_->shared_bytes);
  memset(block.dynamic_shared + launch_->shared_bytes, red_zone, red_zone_bytes);
  std::fill(block.static_shared.begin(), block.static_shared.end(), poison);
}

void Gang::run(uint64_t first) {
  for (unsigned b = 0; b < launch_->gang; b++) reset(blocks_[b], first + b);
  if (launch_->static_shared_bytes) memset(launch_->static_shared, poison, launch_->static_shared_bytes);
  active_ = nullptr;
  if (schedule.shuffled) std::shuffle(fresh_.begin(), fresh_.end(), schedule.random);
  next_fresh_ = ready_head_ = ready_tail_ = 0;
  idle_yields_ = 0;
  go_on(&main_, true);
  current = nullptr;
  if (failure.empty()) check_end();
  if (!failure.empty()) stacks_.reset();
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
  bool fresh = next_fresh_ < fresh_.size(), others = ready_head_ != ready_tail_;
  if (fresh && (fresh_first || !others || (schedule.shuffled && schedule.below(2)))) {
    working_ = stacks_.take();
    switch_to_new(from, working_, work);
  } else if (others) {
    if (schedule.shuffled) {
      size_t chosen = ready_head_ + schedule.below(unsigned(ready_tail_ - ready_head_));
      std::swap(ready_[ready_head_ & ready_mask_], ready_[chosen & ready_mask_]);
    }
    Thread *next = ready_[ready_head_++ & ready_mask_];
    next->state = Thread::State::Ready;
    activate(next);
    // Who lets others run may be chosen itself; it is not suspended anywhere then.
    if (from != &next->stack->suspended) switch_to(from, next->stack->suspended);
  } else {
    switch_to(from, main_);
  }
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
  thread.state = Thread::State::Exited;
  block.live--;
  warp.exited |= 1u << thread.id % warp_size;
  progress();
  if (block.open_barriers || !warp.open.empty()) complete_without(thread);
}

void Gang::come_to(const char *what, unsigned detail, const char *file, int line) {
  current->waits_at = what, current->detail = detail, current->file = file, current->line = line;
  current->copies.perhaps_complete_some();
}

void Gang::wait() {
  Thread *self = current;
  self->state = Thread::State::Waiting;
  go_on(&self->stack->suspended, false);
  self->copies.perhaps_complete_some();
}

void Gang::yield() {
  Thread *self = current;
  self->copies.perhaps_complete_some();
  if (++idle_yields_ > spins_before_giving_up * fresh_.size())
    fail("spins for ever: no other thread changes what it waits for");
  make_ready(self);
  go_on(&self->stack->suspended, true);
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
