// y = a ⋈ b, a truth value; NaN is unequal to everything. One program for each comparison: -DCOMPARISON===.
#include "elementwise.cuh"

#define KERNEL(name, T)                                                                                       \
    extern "C" __global__ void compare_##name(const T* a, const T* b, u8* y, Layout<3> at) {                  \
        map2<u8>(a, b, y, at, [](T a, T b) { return u8(load(a) COMPARISON load(b)); });                       \
    }
KERNEL(f32, f32)
KERNEL(f64, f64)
KERNEL(f16, f16)
KERNEL(bf16, bf16)
KERNEL(i64, i64)
KERNEL(i32, i32)
KERNEL(i8, i8)
KERNEL(u8, u8)
KERNEL(bool, u8)
