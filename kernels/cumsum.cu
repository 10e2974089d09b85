// y[i] = Σ_{k ≤ i} x[k] along one dimension: a block for each line, a tile of one element for each thread after another. Floats
// are summed in f64 and rounded once; integers wrap.
#include "layout.cuh"
#include "reduction.cuh"

// The sum of this lane's value and of all before it in the warp.
template <class A> __device__ __forceinline__ A warp_scan(A x) {
    u32 lane = threadIdx.x % WARP;
    for (u32 step = 1; step < WARP; step *= 2) {
        A before = __shfl_up_sync(ALL_LANES, x, step);
        if (lane >= step) x = Sum<A>::combine(x, before);
    }
    return x;
}

// `lines`: a line's first element in `x` and in `y`, and then the strides along it.
template <class T, class A>
__device__ __forceinline__ void cumsum(const T* x, T* y, const Layout<2>& lines, i64 n, i64 x_stride, i64 y_stride) {
    __shared__ A sums[WARP];
    i64 base[2];
    lines.find(blockIdx.x, base);
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    A before = A(0);
    for (i64 tile = 0; tile < n; tile += blockDim.x) {
        i64 i = tile + threadIdx.x;
        A sum = warp_scan<A>(i < n ? A(x[base[0] + i * x_stride]) : A(0));
        if (lane == WARP - 1) sums[warp] = sum;
        __syncthreads();
        A ahead = before;
        for (u32 w = 0; w < warps; w++) {
            if (w < warp) ahead = Sum<A>::combine(ahead, sums[w]);
            before = Sum<A>::combine(before, sums[w]);
        }
        __syncthreads();
        if (i < n) y[base[1] + i * y_stride] = T(Sum<A>::combine(ahead, sum));
    }
}

#define KERNEL(T, A)                                                                                              \
    extern "C" __global__ void cumsum_##T(const T* x, T* y, Layout<2> lines, i64 n, i64 x_stride, i64 y_stride) { \
        cumsum<T, A>(x, y, lines, n, x_stride, y_stride);                                                         \
    }
KERNEL(f32, f64)
KERNEL(f64, f64)
KERNEL(i64, i64)
