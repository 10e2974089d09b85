// The maximum over windows or bins of planes, and where in its plane it is: the first of equals, the last NaN if there is one;
// −1 for a window that sees only padding. -DAXIS=Windows or -DAXIS=Bins (planes.cuh).
//
// Bandwidth is the limit where windows are small; a window of many elements has a warp.
#include "planes.cuh"
#include "reduction.cuh"

template <class C> struct Found {
    C value;
    i64 place;
};
template <class C> __device__ __forceinline__ Found<C> other_lane(Found<C> x, int bit) {
    return {other_lane(x.value, bit), other_lane(x.place, bit)};
}
template <class C> struct Larger {
    // Of elements that were found in any order.
    __device__ static __forceinline__ Found<C> combine(Found<C> a, Found<C> b) {
        bool a_nan = a.value != a.value, b_nan = b.value != b.value;
        if (a_nan || b_nan) return a_nan && b_nan ? (a.place > b.place ? a : b) : a_nan ? a : b;
        if (a.value == b.value) return a.place < b.place ? a : b;
        return a.value > b.value ? a : b;
    }
};

// `LANES` work on one output.
template <u32 LANES, class X, class C = compute_t<X>>
__device__ __forceinline__ void max_pool(const X* x, X* y, i64* index, const Planes& from, const AXIS& rows, const AXIS& columns) {
    i64 outputs = from.starts.numel * rows.out * columns.out;
    for (i64 o = thread_in_grid() / LANES; o < outputs; o += threads_in_grid() / LANES) {
        Pixel p = pixel(o, rows.out, columns.out);
        auto r = rows.template reads<C>(p.i), c = columns.template reads<C>(p.j);
        const X* plane = from.plane(x, p.plane);
        bool nothing = r.first >= r.end || c.first >= c.end;
        Found<C> best = {smallest_of(C(0)), nothing ? -1 : r.first * columns.n + c.first};
        auto see = [&](i64 u, i64 v) {
            C value = load(plane[u * from.row + v * from.column]);
            if (value > best.value || value != value) best = {value, u * columns.n + v};
        };
        if (LANES == 1) {
            for (i64 u = r.first; u < r.end; u += r.step)
                for (i64 v = c.first; v < c.end; v += c.step) see(u, v);
        } else if (!nothing) {
            i64 height = quotient_up(r.end - r.first, r.step), width = quotient_up(c.end - c.first, c.step);
            for (i64 e = lane_id(); e < height * width; e += WARP) {
                i64 a = quotient(e, width);
                see(r.first + a * r.step, c.first + (e - a * width) * c.step);
            }
        }
        if (LANES > 1) best = warp_reduce<Larger<C>>(best);
        if (LANES == 1 || lane_id() == 0) {
            y[o] = store<X>(best.value);
            index[o] = best.place;
        }
    }
}

#define KERNELS(X)                                                                                                 \
    extern "C" __global__ void by_thread_##X(const X* x, X* y, i64* index, Planes from, AXIS rows, AXIS columns) { \
        max_pool<1>(x, y, index, from, rows, columns);                                                             \
    }                                                                                                              \
    extern "C" __global__ void by_warp_##X(const X* x, X* y, i64* index, Planes from, AXIS rows, AXIS columns) {   \
        max_pool<WARP>(x, y, index, from, rows, columns);                                                          \
    }
KERNELS(f32)
KERNELS(f64)
KERNELS(f16)
KERNELS(bf16)
