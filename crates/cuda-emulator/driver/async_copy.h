// cp.async: copies into shared memory that a thread issues, gathers in groups and waits for. A copy that is not waited
// for may be done at any time, so the destination holds poison from issue until the schedule lets the copy happen.
#pragma once

#include <vector>

namespace emulator {

class AsyncCopies {
 public:
  void issue(void *to, const void *from, unsigned size, unsigned bytes);
  void commit() { committed_++; }
  // Returns when at most `groups_left` of the committed groups are undone.
  void wait(unsigned groups_left);
  // What may happen at any time happens now, if the schedule's dice say so.
  void perhaps_complete_some() {
    if (!pending_.empty()) complete_some();
  }
  void forget() {
    pending_.clear();
    committed_ = 0;
  }

 private:
  struct Copy {
    void *to;
    const void *from;
    unsigned size, bytes;
    unsigned group;
  };
  void complete_some();

  std::vector<Copy> pending_;
  unsigned committed_ = 0;
};

}  // namespace emulator
