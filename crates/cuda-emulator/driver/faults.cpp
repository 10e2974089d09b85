#include "faults.h"

#include <csignal>
#include <cstdio>
#include <ucontext.h>

#include "scheduler.h"

namespace emulator {

namespace {

constexpr int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
struct sigaction previous[NSIG];
char fault_text[128];

[[noreturn]] void escape() { gang.fail(fault_text); }

void handle(int signal, siginfo_t *info, void *context) {
  if (!gang.current || gang.faulted) {
    sigaction(signal, &previous[signal], nullptr);
    return;  // the instruction runs again and faults under the previous handler
  }
  gang.faulted = true;
  const char *what = signal == SIGFPE   ? "division by zero"
                     : signal == SIGILL ? "illegal instruction"
                                        : "access to memory that is not there, or misaligned";
  snprintf(fault_text, sizeof fault_text, "%s (address %p)", what, info->si_addr);
#if defined(__x86_64__)
  // On return the thread fails the launch, from the end of its stack: the rest of it may be what overflowed.
  auto &registers = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
  registers[REG_RSP] = reinterpret_cast<greg_t>(gang.current->stack->top) - 8;
  registers[REG_RIP] = reinterpret_cast<greg_t>(escape);
#else
  (void)context;
  fprintf(stderr, "ferrograd's CUDA emulator: %s: %s\n", describe(*gang.current).c_str(), fault_text);
  sigaction(signal, &previous[signal], nullptr);
#endif
}

}  // namespace

void catch_faults() {
  gang.faulted = false;
  static bool installed = false;
  if (installed) return;
  installed = true;
  struct sigaction action = {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (int signal : signals) sigaction(signal, &action, &previous[signal]);
}

}  // namespace emulator
