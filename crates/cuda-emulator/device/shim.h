// Included before every kernel: makes what NVRTC has built in out of plain C++.
#pragma once
#include "contract.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __maxnreg__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
// One block runs at a time, so its shared memory can be static: the driver fills it with 0xFF before each block
// (the linker script gathers the static variables of functions, and only these), which the compiler must not rule out:
// `used` says that there are writes which it does not see.
#define __shared__ static __attribute__((used))

using size_t = decltype(sizeof(0));
using ptrdiff_t = decltype((char *)nullptr - (char *)nullptr);
constexpr int warpSize = 32;

extern "C" int printf(const char *, ...);
extern "C" void *memcpy(void *, const void *, size_t) noexcept;
extern "C" void *memset(void *, int, size_t) noexcept;

#include "vector_types.h"
#include "math_functions.h"
#include "atomics.h"
#include "integers.h"
#include "warp.h"
#include "kernel.h"

[[noreturn]] inline void __trap(EMULATOR_HERE) { emulator_fail("__trap", file, line); }
#define assert(condition) ((condition) ? (void)0 : emulator_fail("assertion failed: " #condition, __FILE__, __LINE__))
