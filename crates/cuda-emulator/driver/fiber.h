// Stacks and the switch between them. A fiber costs nothing until it first gives way: see scheduler.cpp.
#pragma once

#include <vector>

namespace emulator {

struct Stack {
  char *low;  // the lowest usable address; a guard page lies below
  char *top;  // the end: an address from which calls may be made
};

// Stacks are kept for the next launch: touching new pages is the expensive part.
class StackPool {
 public:
  Stack *take();
  void give_back(Stack *stack) { free_.push_back(stack); }
  // Every stack is free again: a launch that failed leaves its fibers where they stand.
  void reset() { free_ = all_; }

 private:
  std::vector<Stack *> all_, free_;
};

// Leaves the running fiber, noting in `*from` where it goes on, and goes on at `to`.
void switch_to(void **from, void *to);
// Leaves the running fiber and calls `entry`, which never returns, on an unused stack.
void switch_to_new(void **from, Stack *stack, void (*entry)());

}  // namespace emulator
