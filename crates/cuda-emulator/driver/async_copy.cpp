#include "async_copy.h"

#include <cstring>

#include "scheduler.h"

namespace emulator {

namespace {
void copy(void *to, const void *from, unsigned size, unsigned bytes) {
  memcpy(to, from, bytes);
  memset(static_cast<char *>(to) + bytes, 0, size - bytes);
}
}  // namespace

void AsyncCopies::issue(void *to, const void *from, unsigned size, unsigned bytes) {
  if (schedule.asynchrony == Schedule::Asynchrony::Eager) return copy(to, from, size, bytes);
  memset(to, 0xFF, size);
  pending_.push_back({to, from, size, bytes, committed_});
}

void AsyncCopies::wait(unsigned groups_left) {
  size_t kept = 0;
  for (const Copy &c : pending_) {
    // A copy of the group that is not committed yet is beyond the reach of any wait.
    if (c.group + groups_left < committed_)
      copy(c.to, c.from, c.size, c.bytes);
    else
      pending_[kept++] = c;
  }
  pending_.resize(kept);
}

void AsyncCopies::complete_some() {
  if (schedule.asynchrony != Schedule::Asynchrony::Random) return;
  size_t kept = 0;
  for (const Copy &c : pending_) {
    if (schedule.below(8) == 0)
      copy(c.to, c.from, c.size, c.bytes);
    else
      pending_[kept++] = c;
  }
  pending_.resize(kept);
}

}  // namespace emulator
