// Where threads meet: the warp's collective operations and the block's barriers. What kernels call is defined here.
#include <cstring>

#include "scheduler.h"

#define DEVICE_API extern "C" __attribute__((visibility("default")))

namespace emulator {

namespace {

constexpr unsigned no_threads_given = 0;

Warp &warp_of(const Thread &thread) { return thread.block->warps[thread.id / warp_size]; }
unsigned lane_of(const Thread &thread) { return thread.id % warp_size; }

// Everyone whom the mask names has come or exited: the operation happens, and all but the running thread wake up.
void complete(Thread &any, Warp &warp, size_t which) {
  Rendezvous meeting = warp.open[which];
  warp.open.erase(warp.open.begin() + long(which));
  meeting.operation->complete(warp.parts, meeting.arrived);
  gang.progress();
  Thread *first = &any - lane_of(any);
  for (unsigned lanes = meeting.arrived; lanes; lanes &= lanes - 1) {
    Thread *thread = first + __builtin_ctz(lanes);
    if (thread != gang.current) gang.make_ready(thread);
  }
}

bool is_complete(const Rendezvous &meeting, const Warp &warp) {
  return (meeting.mask & ~(meeting.arrived | warp.exited)) == 0;
}

unsigned awaited(const Barrier &barrier, const Block &block) {
  return barrier.threads == no_threads_given ? block.live : barrier.threads;
}

EmulatorVotes release(Block &block, unsigned id) {
  Barrier &barrier = block.barriers[id];
  EmulatorVotes votes{int(barrier.votes), barrier.votes != 0, barrier.votes == barrier.arrived};
  barrier.arrived = 0;
  block.open_barriers &= ~(1u << id);
  for (Thread *thread : barrier.waiting) {
    thread->votes = votes;
    gang.make_ready(thread);
  }
  barrier.waiting.clear();
  gang.progress();
  return votes;
}

// Counts the running thread in. `what` is null when it does not wait.
Barrier &arrive(unsigned id, unsigned threads, int vote, const char *what, const char *file, int line) {
  Block &block = *gang.current->block;
  if (id >= barriers_per_block) gang.fail("barrier " + std::to_string(id) + " does not exist", file, line);
  if (threads % warp_size) gang.fail("a barrier counts whole warps, not " + std::to_string(threads), file, line);
  Barrier &barrier = block.barriers[id];
  if (barrier.arrived == 0) {
    barrier.threads = threads, barrier.votes = 0, barrier.what = nullptr;
    block.open_barriers |= 1u << id;
  }
  if (barrier.threads != threads)
    gang.fail("threads disagree on how many meet at barrier " + std::to_string(id), file, line);
  if (what && barrier.what && strcmp(what, barrier.what))
    gang.fail(std::string(what) + " meets others at " + barrier.what, file, line);
  if (what) barrier.what = what;
  barrier.arrived++;
  barrier.votes += vote != 0;
  return barrier;
}

}  // namespace

void complete_without(Thread &exited) {
  Warp &warp = warp_of(exited);
  for (size_t i = 0; i < warp.open.size();) {
    if (is_complete(warp.open[i], warp))
      complete(exited, warp, i);
    else
      i++;
  }
  Block &block = *exited.block;
  for (unsigned open = block.open_barriers; open; open &= open - 1) {
    unsigned id = unsigned(__builtin_ctz(open));
    if (block.barriers[id].arrived == awaited(block.barriers[id], block)) release(block, id);
  }
}

}  // namespace emulator

using namespace emulator;

DEVICE_API unsigned emulator_lane() { return lane_of(*gang.current); }
DEVICE_API unsigned emulator_active_lanes() { return ~warp_of(*gang.current).exited; }
DEVICE_API void *emulator_dynamic_shared() { return gang.current->block->dynamic_shared; }
DEVICE_API void emulator_yield() { gang.yield(); }
DEVICE_API void emulator_fail(const char *message, const char *file, int line) { gang.fail(message, file, line); }

DEVICE_API void emulator_warp(unsigned mask, const EmulatorCollective *operation, void *part, const char *file,
                              int line) {
  Thread &self = *gang.current;
  Warp &warp = warp_of(self);
  const unsigned lane = lane_of(self);
  gang.come_to(operation->name, mask, file, line);
  if (!(mask >> lane & 1)) gang.fail("calls a collective whose mask does not name it", file, line);
  warp.parts[lane] = part;
  size_t which = 0;
  while (which < warp.open.size() && warp.open[which].mask != mask) which++;
  if (which == warp.open.size()) warp.open.push_back({mask, 0, operation});
  Rendezvous &meeting = warp.open[which];
  if (meeting.operation != operation)
    gang.fail(std::string(operation->name) + " meets others of its warp at " + meeting.operation->name, file, line);
  meeting.arrived |= 1u << lane;
  if (is_complete(meeting, warp))
    complete(self, warp, which);
  else
    gang.wait();
}

DEVICE_API EmulatorVotes emulator_barrier(unsigned id, unsigned threads, int vote, const char *what, const char *file,
                                          int line) {
  Thread &self = *gang.current;
  gang.come_to(what, id, file, line);
  Barrier &barrier = arrive(id, threads, vote, what, file, line);
  if (barrier.arrived == awaited(barrier, *self.block)) return release(*self.block, id);
  barrier.waiting.push_back(&self);
  gang.wait();
  return self.votes;
}

DEVICE_API void emulator_barrier_arrive(unsigned id, unsigned threads, const char *file, int line) {
  Thread &self = *gang.current;
  Barrier &barrier = arrive(id, threads, 0, nullptr, file, line);
  if (barrier.arrived == awaited(barrier, *self.block)) release(*self.block, id);
}

DEVICE_API unsigned emulator_shared_address(const void *p, const char *file, int line) {
  const unsigned address = gang.shared_address(p);
  if (!address) gang.fail("no address in shared memory", file, line);
  return address;
}
DEVICE_API unsigned emulator_cluster_rank() { return gang.current->block->rank; }
DEVICE_API void emulator_cluster_arrive(const char *file, int line) { gang.cluster_arrive(file, line); }
DEVICE_API void emulator_cluster_wait(const char *file, int line) { gang.cluster_wait(file, line); }

DEVICE_API void emulator_copy_async(void *to, const void *from, unsigned size, unsigned bytes, const char *file,
                                    int line) {
  if (bytes > size) gang.fail("cp.async reads more than it writes", file, line);
  if (reinterpret_cast<uintptr_t>(to) % size || reinterpret_cast<uintptr_t>(from) % size)
    gang.fail("cp.async of " + std::to_string(size) + " bytes between misaligned addresses", file, line);
  if (!gang.is_shared(to, size)) gang.fail("cp.async to outside shared memory", file, line);
  gang.current->copies.issue(to, from, size, bytes);
}
DEVICE_API void emulator_copy_commit() { gang.current->copies.commit(); }
DEVICE_API void emulator_copy_wait(unsigned groups_left) { gang.current->copies.wait(groups_left); }
