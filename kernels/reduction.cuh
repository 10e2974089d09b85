// Reductions within a warp and within a block.
#pragma once
#include "types.cuh"

template <class T> struct Sum {
    __device__ static __forceinline__ T identity() { return T(0); }
    __device__ static __forceinline__ T combine(T a, T b) { return a + b; }
};
template <> struct Sum<i64> {
    __device__ static __forceinline__ i64 identity() { return 0; }
    __device__ static __forceinline__ i64 combine(i64 a, i64 b) { return (i64)((u64)a + (u64)b); }
};
template <class T> struct Prod {
    __device__ static __forceinline__ T identity() { return T(1); }
    __device__ static __forceinline__ T combine(T a, T b) { return a * b; }
};
template <> struct Prod<i64> {
    __device__ static __forceinline__ i64 identity() { return 1; }
    __device__ static __forceinline__ i64 combine(i64 a, i64 b) { return (i64)((u64)a * (u64)b); }
};

__device__ __forceinline__ f32 largest_of(f32) { return __uint_as_float(0x7f800000); }
__device__ __forceinline__ f64 largest_of(f64) { return __longlong_as_double(0x7ff0000000000000ll); }
__device__ __forceinline__ i64 largest_of(i64) { return 0x7fffffffffffffffll; }
__device__ __forceinline__ f32 smallest_of(f32) { return __uint_as_float(0xff800000); }
__device__ __forceinline__ f64 smallest_of(f64) { return __longlong_as_double(0xfff0000000000000ll); }
__device__ __forceinline__ i64 smallest_of(i64) { return -0x7fffffffffffffffll - 1; }

// NaN wins.
template <class T> struct Max {
    __device__ static __forceinline__ T identity() { return smallest_of(T(0)); }
    __device__ static __forceinline__ T combine(T a, T b) { return a > b || a != a ? a : b; }
};
template <class T> struct Min {
    __device__ static __forceinline__ T identity() { return largest_of(T(0)); }
    __device__ static __forceinline__ T combine(T a, T b) { return a < b || a != a ? a : b; }
};

constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffff;

// The value of the lane whose number differs in `bit`; a type of several numbers has a version of its own.
template <class T> __device__ __forceinline__ T other_lane(T x, int bit) { return __shfl_xor_sync(ALL_LANES, x, bit); }

// In every lane, the combination of all lanes' values, the same bits in each.
template <class OP, class T> __device__ __forceinline__ T warp_reduce(T x) {
    for (int bit = WARP / 2; bit > 0; bit /= 2) x = OP::combine(x, other_lane(x, bit));
    return x;
}

// In every thread of a block of whole warps.
template <class OP, class T> __device__ __forceinline__ T block_reduce(T x) {
    __shared__ T parts[WARP];
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    x = warp_reduce<OP>(x);
    __syncthreads();
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    return warp_reduce<OP>(lane < warps ? parts[lane] : OP::identity());
}

// Two sums at once.
template <class T> struct Two {
    T a, b;
};
template <class T> __device__ __forceinline__ Two<T> other_lane(Two<T> x, int bit) {
    return {other_lane(x.a, bit), other_lane(x.b, bit)};
}
template <class T> struct SumTwo {
    __device__ static __forceinline__ Two<T> identity() { return {T(0), T(0)}; }
    __device__ static __forceinline__ Two<T> combine(Two<T> x, Two<T> y) { return {x.a + y.a, x.b + y.b}; }
};
