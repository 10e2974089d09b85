// y = x with some dimensions reduced. One program for each operation and type: -DOP=Sum -DTYPE=f32.
//
// What reads memory in long runs depends on which dimensions go. If the fastest-moving one goes, neighbouring threads take
// neighbours of one sum, a warp or a block for each; if it stays, each thread takes a sum of its own, next to its neighbour's.
// Few long sums are cut into `parts`, which a second launch adds up: a cut that depends on the shape alone, so that
// the same numbers give the same bits.
#include "layout.cuh"
#include "reduction.cuh"

// What each type is reduced in.
template <class T> struct Accumulator { typedef i64 type; };
template <> struct Accumulator<f32> { typedef f32 type; };
template <> struct Accumulator<f64> { typedef f64 type; };
template <> struct Accumulator<f16> { typedef f32 type; };
template <> struct Accumulator<bf16> { typedef f32 type; };

typedef TYPE X;
typedef Accumulator<X>::type A;

// This thread's share of sum `o`: elements `first`, `first + step`, … of part `blockIdx.y`.
__device__ __forceinline__ A share(const X* x, const Layout<1>& kept, const Layout<1>& reduced, i64 part, i64 o, u32 first, u32 step) {
    i64 at[1], base[1];
    kept.find(o, base);
    i64 start = blockIdx.y * part, end = start + part < reduced.numel ? start + part : reduced.numel;
    A sum = OP<A>::identity();
    for (i64 r = start + first; r < end; r += step) {
        reduced.find(r, at);
        sum = OP<A>::combine(sum, A(load(x[base[0] + at[0]])));
    }
    return sum;
}

extern "C" __global__ void by_block(const X* x, A* y, Layout<1> kept, Layout<1> reduced, i64 part) {
    i64 o = blockIdx.x;
    A sum = block_reduce<OP<A>>(share(x, kept, reduced, part, o, threadIdx.x, blockDim.x));
    if (threadIdx.x == 0) y[blockIdx.y * kept.numel + o] = sum;
}

extern "C" __global__ void by_warp(const X* x, A* y, Layout<1> kept, Layout<1> reduced, i64 part) {
    i64 o = (i64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (o >= kept.numel) return;
    A sum = warp_reduce<OP<A>>(share(x, kept, reduced, part, o, threadIdx.x % WARP, WARP));
    if (threadIdx.x % WARP == 0) y[blockIdx.y * kept.numel + o] = sum;
}

extern "C" __global__ void by_thread(const X* x, A* y, Layout<1> kept, Layout<1> reduced, i64 part) {
    i64 o = thread_in_grid();
    if (o < kept.numel) y[blockIdx.y * kept.numel + o] = share(x, kept, reduced, part, o, 0, 1);
}
