// y = f(a, b). One program for each function, and for floats and integers: -DFUNCTION=add, -DINTEGERS.
#include "elementwise.cuh"
#ifdef INTEGERS
#include "integers.cuh"
#else
#include "functions.cuh"
#endif

#define KERNEL(T)                                                                                             \
    extern "C" __global__ void binary_##T(const T* a, const T* b, T* y, Layout<3> at) {                       \
        map2<T>(a, b, y, at, [](T a, T b) { return store<T>(FUNCTION<compute_t<T>>(load(a), load(b))); });    \
    }
#ifdef INTEGERS
KERNEL(i64)
KERNEL(i32)
KERNEL(i8)
KERNEL(u8)
#else
KERNEL(f32)
KERNEL(f64)
KERNEL(f16)
KERNEL(bf16)
#endif
