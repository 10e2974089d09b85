// Mean and Σ (x − mean)² over some dimensions, in one read: each thread merges small groups of elements, whose two passes are in
// registers, into what it has, and the threads merge theirs (T. F. Chan, G. H. Golub, R. J. LeVeque 1983). All of it relative to the
// line's first element: where the mean is large beside the spread, means of groups would differ by their rounding.
//
// Who adds what is as in reduce.cu. `finish` merges the parts: the mean, and Σ (x − mean)² / (n − correction), or
// with `root` 1/√(that + eps).
#include "layout.cuh"
#include "reduction.cuh"

template <class T> struct Moments {
    T count, mean, squares;
};
template <class T> __device__ __forceinline__ Moments<T> other_lane(Moments<T> m, int bit) {
    return {other_lane(m.count, bit), other_lane(m.mean, bit), other_lane(m.squares, bit)};
}
template <class T> struct Merge {
    __device__ static __forceinline__ Moments<T> identity() { return {T(0), T(0), T(0)}; }
    __device__ static __forceinline__ Moments<T> combine(Moments<T> a, Moments<T> b) {
        if (b.count == T(0)) return a;
        if (a.count == T(0)) return b;
        T count = a.count + b.count, apart = b.mean - a.mean, share = b.count / count;
        return {count, a.mean + apart * share, a.squares + b.squares + apart * apart * (a.count * share)};
    }
};

typedef TYPE X;
typedef compute_t<X> C;

// What a line's elements are relative to.
__device__ __forceinline__ C origin(const X* x, i64 at) {
    C first = load(x[at]);
    return isfinite(first) ? first : C(0);
}

// This thread's share of line `o`: elements `first`, `first + step`, … of part `blockIdx.y`.
__device__ __forceinline__ Moments<C> share(const X* x, const Layout<1>& kept, const Layout<1>& reduced, i64 part, i64 o, u32 first, u32 step) {
    constexpr int GROUP = 8;
    i64 at[1], base[1];
    kept.find(o, base);
    i64 start = blockIdx.y * part, end = start + part < reduced.numel ? start + part : reduced.numel;
    C zero = origin(x, base[0]);
    Moments<C> all = Merge<C>::identity();
    for (i64 r = start + first; r < end; r += (i64)GROUP * step) {
        C group[GROUP], sum = C(0), squares = C(0), count = C(0);
#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            if (r + (i64)k * step >= end) continue;
            reduced.find(r + (i64)k * step, at);
            group[k] = load(x[base[0] + at[0]]) - zero;
            sum += group[k];
            count += C(1);
        }
        C mean = sum / count;
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            if (r + (i64)k * step < end) squares += (group[k] - mean) * (group[k] - mean);
        all = Merge<C>::combine(all, {count, mean, squares});
    }
    return all;
}

extern "C" __global__ void by_block(const X* x, Moments<C>* y, Layout<1> kept, Layout<1> reduced, i64 part) {
    i64 o = blockIdx.x;
    auto m = block_reduce<Merge<C>>(share(x, kept, reduced, part, o, threadIdx.x, blockDim.x));
    if (threadIdx.x == 0) y[blockIdx.y * kept.numel + o] = m;
}

extern "C" __global__ void by_warp(const X* x, Moments<C>* y, Layout<1> kept, Layout<1> reduced, i64 part) {
    i64 o = (i64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (o >= kept.numel) return;
    auto m = warp_reduce<Merge<C>>(share(x, kept, reduced, part, o, threadIdx.x % WARP, WARP));
    if (threadIdx.x % WARP == 0) y[blockIdx.y * kept.numel + o] = m;
}

extern "C" __global__ void by_thread(const X* x, Moments<C>* y, Layout<1> kept, Layout<1> reduced, i64 part) {
    i64 o = thread_in_grid();
    if (o < kept.numel) y[blockIdx.y * kept.numel + o] = share(x, kept, reduced, part, o, 0, 1);
}

extern "C" __global__ void finish(const X* x, const Moments<C>* parts, C* mean, C* spread, Layout<1> kept, i64 count, f64 correction,
                                  i32 root, f64 eps) {
    for (i64 o = thread_in_grid(); o < kept.numel; o += threads_in_grid()) {
        i64 at[1];
        kept.find(o, at);
        Moments<C> m = parts[o];
        for (i64 p = 1; p < count; p++) m = Merge<C>::combine(m, parts[p * kept.numel + o]);
        C freedom = m.count > C(correction) ? m.count - C(correction) : C(0), variance = m.squares / freedom;
        mean[o] = origin(x, at[0]) + m.mean;
        spread[o] = root ? C(1) / sqrt(variance + C(eps)) : variance;
    }
}
