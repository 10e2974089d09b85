// y = x in another type. One program for each type to cast from: -DFROM=f32.
//
// Floats to integers truncate, take the nearest number that the type has, and 0 for NaN; integers to narrower ones wrap; to
// truth: is it not 0.
#include "elementwise.cuh"

template <class T> struct Limits;
template <> struct Limits<i64> { static constexpr i64 MIN = -0x7fffffffffffffffll - 1, MAX = 0x7fffffffffffffffll; };
template <> struct Limits<i32> { static constexpr i32 MIN = -0x7fffffff - 1, MAX = 0x7fffffff; };
template <> struct Limits<i8> { static constexpr i8 MIN = -128, MAX = 127; };
template <> struct Limits<u8> { static constexpr u8 MIN = 0, MAX = 255; };

template <class X> struct Whole { static constexpr bool VALUE = true; };
template <> struct Whole<f32> { static constexpr bool VALUE = false; };
template <> struct Whole<f64> { static constexpr bool VALUE = false; };

template <class Y> struct Cast {
    // The limits themselves may be no floats: i64's largest rounds up to 2⁶³, which is out of range like all above.
    __device__ static Y of_float(f64 x) {
        if (x != x) return Y(0);
        if (x <= f64(Limits<Y>::MIN)) return Limits<Y>::MIN;
        if (x >= f64(Limits<Y>::MAX)) return Limits<Y>::MAX;
        return Y(x);
    }
    __device__ static Y of(f32 x) { return of_float(x); }
    __device__ static Y of(f64 x) { return of_float(x); }
    template <class X> __device__ static Y of(X x) { return Y(x); }
};
template <> struct Cast<f32> {
    __device__ static f32 of(f32 x) { return x; }
    template <class X> __device__ static f32 of(X x) { return f32(f64(x)); }
};
template <> struct Cast<f64> {
    template <class X> __device__ static f64 of(X x) { return f64(x); }
};
template <> struct Cast<f16> {
    __device__ static f16 of(f32 x) { return to_f16(x); }
    template <class X> __device__ static f16 of(X x) { return store<f16>(f64(x)); }
};
template <> struct Cast<bf16> {
    __device__ static bf16 of(f32 x) { return to_bf16(x); }
    template <class X> __device__ static bf16 of(X x) { return store<bf16>(f64(x)); }
};
template <> struct Cast<boolean> {
    template <class X> __device__ static boolean of(X x) { return boolean{u8(x != X(0))}; }
};

#define KERNEL(name, Y)                                                                                       \
    extern "C" __global__ void cast_##name(const FROM* x, Y* y, Layout<2> at) {                               \
        map1<Y>(x, y, at, [](FROM x) { return Cast<Y>::of(load(x)); });                                       \
    }
KERNEL(f32, f32)
KERNEL(f64, f64)
KERNEL(f16, f16)
KERNEL(bf16, bf16)
KERNEL(i64, i64)
KERNEL(i32, i32)
KERNEL(i8, i8)
KERNEL(u8, u8)
KERNEL(bool, boolean)
