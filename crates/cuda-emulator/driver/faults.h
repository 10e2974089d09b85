#pragma once

namespace emulator {

// Turns a kernel's access to memory that does not exist, its division by zero or its stack overflow into a failed
// launch that names the thread. Signals from outside kernels go where they went before.
void catch_faults();

}  // namespace emulator
