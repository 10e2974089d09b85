// Element types, and the type that each is computed in.
#pragma once
#include "ptx.cuh"

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;

// Kept as bits, so that no arithmetic happens in them by accident.
struct bf16 { u16 bits; };
struct f16 { u16 bits; };
// A truth value: a byte that is 0 or 1.
struct boolean { u8 bits; };

__device__ __forceinline__ f32 widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ f32 widen(f16 x) { return f16_to_f32(x.bits); }

// To the nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ bf16 to_bf16(f32 x) {
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return bf16{(u16)(bits >> 16 | 0x40)};
    return bf16{(u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
__device__ __forceinline__ f16 to_f16(f32 x) { return f16{f32_to_f16_rn(x)}; }

// A double as a float that rounds on to any narrower type as the double itself would: cut off, and the last bit set if
// anything was ("round to odd"; S. Boldo, G. Melquiond 2008).
__device__ __forceinline__ f32 to_odd(f64 x) {
    f32 y = (f32)x;
    if ((f64)y == x || x != x || isinf(y)) return y;
    u32 bits = __float_as_uint(y);
    if (fabs((f64)y) > fabs(x)) bits -= 1;
    return __uint_as_float(bits | 1);
}

// The type that a sum, or a function, of T is computed in.
template <class T> struct Compute { typedef T type; };
template <> struct Compute<bf16> { typedef f32 type; };
template <> struct Compute<f16> { typedef f32 type; };
template <class T> using compute_t = typename Compute<T>::type;

__device__ __forceinline__ f32 load(bf16 x) { return widen(x); }
__device__ __forceinline__ f32 load(f16 x) { return widen(x); }
__device__ __forceinline__ u8 load(boolean x) { return x.bits; }
template <class T> __device__ __forceinline__ T load(T x) { return x; }

template <class T> struct Store {
    __device__ static __forceinline__ T of(T x) { return x; }
};
template <> struct Store<bf16> {
    __device__ static __forceinline__ bf16 of(f32 x) { return to_bf16(x); }
    __device__ static __forceinline__ bf16 of(f64 x) { return to_bf16(to_odd(x)); }
};
template <> struct Store<f16> {
    __device__ static __forceinline__ f16 of(f32 x) { return to_f16(x); }
    __device__ static __forceinline__ f16 of(f64 x) { return to_f16(to_odd(x)); }
};
template <> struct Store<boolean> {
    __device__ static __forceinline__ boolean of(u8 x) { return boolean{x}; }
};
template <class T, class C> __device__ __forceinline__ T store(C x) { return Store<T>::of(x); }

// Sixteen bytes of T, moved at once.
template <class T> struct alignas(16) Vector {
    static constexpr int LENGTH = 16 / sizeof(T);
    T at[LENGTH];
};
