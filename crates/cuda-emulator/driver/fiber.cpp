#include "fiber.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulator {

namespace {
// Only touched pages take memory, so that a kernel with large local arrays has room.
constexpr size_t stack_bytes = 256 << 10;
// Stacks that all ended at the same place of a page would lie in the same few sets of the cache, and each switch would
// miss it: each ends a line further down, until a page is through.
constexpr size_t line_bytes = 64, lines_per_page = 64;
}  // namespace

Stack *StackPool::take() {
  if (free_.empty()) {
    const size_t guard = size_t(sysconf(_SC_PAGESIZE));
    void *memory = mmap(nullptr, guard + stack_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE) != 0) {
      perror("ferrograd's CUDA emulator: no memory for a thread's stack");
      abort();
    }
    char *low = static_cast<char *>(memory) + guard;
    all_.push_back(new Stack{low, low + stack_bytes - all_.size() % lines_per_page * line_bytes});
    free_.push_back(all_.back());
  }
  Stack *stack = free_.back();
  free_.pop_back();
  return stack;
}

#if defined(__x86_64__)

// The registers that a call preserves go to the stack, the stacks are exchanged, and the registers come back.
asm(R"(
    .text
    .p2align 4
    .type ferrograd_emulator_switch, @function
ferrograd_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq  %rsp, (%rdi)
    movq  %rsi, %rsp
    popq  %r15
    popq  %r14
    popq  %r13
    popq  %r12
    popq  %rbx
    popq  %rbp
    ret
    .size ferrograd_emulator_switch, .-ferrograd_emulator_switch
)");
extern "C" __attribute__((visibility("hidden"))) void ferrograd_emulator_switch(void **from, void *to);

void switch_to(void **from, void *to) { ferrograd_emulator_switch(from, to); }

void switch_to_new(void **from, Stack *stack, void (*entry)()) {
  // As if `entry` had been called and had pushed its six registers: the stack is 8 short of a multiple of 16 there.
  void **top = reinterpret_cast<void **>(stack->top) - 8;
  for (int i = 0; i < 6; i++) top[i] = nullptr;
  top[6] = reinterpret_cast<void *>(entry);
  top[7] = nullptr;
  ferrograd_emulator_switch(from, top);
}

#else

// Elsewhere the C library switches, some twenty times as slowly because it also saves the signal mask.
void switch_to(void **from, void *to) {
  ucontext_t here;
  *from = &here;
  swapcontext(&here, static_cast<ucontext_t *>(to));
}

void switch_to_new(void **from, Stack *stack, void (*entry)()) {
  ucontext_t here, there;
  getcontext(&there);
  there.uc_stack.ss_sp = stack->low;
  there.uc_stack.ss_size = size_t(stack->top - stack->low);
  there.uc_link = nullptr;
  makecontext(&there, entry, 0);
  *from = &here;
  swapcontext(&here, &there);
}

#endif

}  // namespace emulator
