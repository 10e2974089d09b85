// y = f(x). One program for each function, and for floats and integers: -DFUNCTION=gelu, -DINTEGERS.
#include "elementwise.cuh"
#ifdef INTEGERS
#include "integers.cuh"
#else
#include "functions.cuh"
#endif

#define KERNEL(T)                                                                                             \
    extern "C" __global__ void unary_##T(const T* x, T* y, Layout<2> at, Scalars s) {                         \
        map1<T>(x, y, at, [=](T x) { return store<T>(FUNCTION<compute_t<T>>(load(x), s)); });                 \
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
