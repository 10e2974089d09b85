// y = condition ? a : b, in elements of 1, 2, 4 and 8 bytes.
#include "elementwise.cuh"

#define KERNEL(name, T)                                                                                       \
    extern "C" __global__ void select_##name(const u8* condition, const T* a, const T* b, T* y, Layout<4> at) { \
        map3<T>(condition, a, b, y, at, [](u8 c, T a, T b) { return c ? a : b; });                            \
    }
KERNEL(u8, u8)
KERNEL(f16, u16)
KERNEL(i32, u32)
KERNEL(i64, u64)
