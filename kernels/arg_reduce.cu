// The position of the largest or smallest element along one dimension: a block for each line. NaN wins; the first on ties.
#include "layout.cuh"
#include "reduction.cuh"

template <class T> struct Best {
    T value;
    i64 at;
};

template <class T> __device__ __forceinline__ bool better(const Best<T>& a, const Best<T>& b, bool largest) {
    bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (b.at < 0 || a.at < 0) return b.at < 0;
    if (a_nan != b_nan) return a_nan;
    if (a.value == b.value || a_nan) return a.at < b.at;
    return largest ? a.value > b.value : a.value < b.value;
}

template <class T> __device__ __forceinline__ Best<T> warp_best(Best<T> best, bool largest) {
    for (int step = WARP / 2; step > 0; step /= 2) {
        Best<T> other{__shfl_xor_sync(ALL_LANES, best.value, step), __shfl_xor_sync(ALL_LANES, best.at, step)};
        if (better(other, best, largest)) best = other;
    }
    return best;
}

// `lines` has a line's first element for each of the block's numbers; along the line there are `n`, `stride` apart.
template <class X, class T>
__device__ __forceinline__ void arg_reduce(const X* x, i64* y, const Layout<1>& lines, i64 n, i64 stride, bool largest) {
    __shared__ T values[WARP];
    __shared__ i64 places[WARP];
    i64 base[1];
    lines.find(blockIdx.x, base);
    Best<T> best{T(0), -1};
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
        Best<T> next{T(load(x[base[0] + i * stride])), i};
        if (better(next, best, largest)) best = next;
    }
    best = warp_best(best, largest);
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (lane == 0) {
        values[warp] = best.value;
        places[warp] = best.at;
    }
    __syncthreads();
    bool there = lane < blockDim.x / WARP;
    best = warp_best(Best<T>{there ? values[lane] : T(0), there ? places[lane] : -1}, largest);
    if (threadIdx.x == 0) y[blockIdx.x] = best.at;
}

#define KERNEL(name, X, T)                                                                                        \
    extern "C" __global__ void arg_reduce_##name(const X* x, i64* y, Layout<1> lines, i64 n, i64 stride, i32 largest) { \
        arg_reduce<X, T>(x, y, lines, n, stride, largest != 0);                                                   \
    }
KERNEL(f32, f32, f32)
KERNEL(f64, f64, f64)
KERNEL(f16, f16, f32)
KERNEL(bf16, bf16, f32)
KERNEL(i64, i64, i64)
KERNEL(i32, i32, i32)
KERNEL(i8, i8, i32)
KERNEL(u8, u8, i32)
KERNEL(bool, u8, i32)
