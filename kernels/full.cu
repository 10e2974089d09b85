// y[i] = value, in elements of 1, 2, 4 and 8 bytes.
#include "layout.cuh"

#define KERNEL(name, T)                                                                                       \
    extern "C" __global__ void full_##name(T* y, i64 n, u64 bits) {                                           \
        for (i64 i = thread_in_grid(); i < n; i += threads_in_grid()) y[i] = T(bits);                         \
    }
KERNEL(u8, u8)
KERNEL(f16, u16)
KERNEL(i32, u32)
KERNEL(i64, u64)
