// Linear maps of planes: means over windows or bins, and interpolation; -DAXIS=… says which (planes.cuh). All are a map of
// the rows times one of the columns:
//
//     y[i, j] = Σ_u r(i, u) Σ_v c(j, v) x[u, v],    and the adjoint    dx[u, v] = Σ_i r(i, u) Σ_j c(j, v) dy[i, j].
//
// The adjoint is a sum over the outputs that read an input, not an addition to the inputs of an output: nobody writes where
// another does, and the sum has one order. Bandwidth is the limit where windows are small; a window of many elements has a warp.
#include "planes.cuh"
#include "reduction.cuh"

// The sum over a window of `plane` by one thread, in order.
template <class T, class X, class C = compute_t<X>>
__device__ __forceinline__ C by_thread(const X* plane, const Planes& at, const T& rows, const T& columns) {
    C sum = C(0);
    for (i64 u = rows.first; u < rows.end; u++) {
        C line = C(0);
        for (i64 v = columns.first; v < columns.end; v++) line += columns.weight(v) * load(plane[u * at.row + v * at.column]);
        sum += rows.weight(u) * line;
    }
    return sum;
}

// The same by a warp, each lane every 32nd element.
template <class T, class X, class C = compute_t<X>>
__device__ __forceinline__ C by_warp(const X* plane, const Planes& at, const T& rows, const T& columns) {
    C sum = C(0);
    i64 width = columns.end - columns.first, count = (rows.end - rows.first) * width;
    for (i64 e = lane_id(); e < count; e += WARP) {
        i64 u = quotient(e, width), v = columns.first + e - u * width;
        u += rows.first;
        sum += rows.weight(u) * columns.weight(v) * load(plane[u * at.row + v * at.column]);
    }
    return warp_reduce<Sum<C>>(sum);
}

// `LANES` work on one output.
template <u32 LANES, class X, class C = compute_t<X>>
__device__ __forceinline__ void map(const X* x, X* y, const Planes& from, const AXIS& rows, const AXIS& columns) {
    i64 outputs = from.starts.numel * rows.out * columns.out;
    for (i64 o = thread_in_grid() / LANES; o < outputs; o += threads_in_grid() / LANES) {
        Pixel p = pixel(o, rows.out, columns.out);
        auto r = rows.template reads<C>(p.i), c = columns.template reads<C>(p.j);
        const X* plane = from.plane(x, p.plane);
        C sum = LANES == 1 ? by_thread(plane, from, r, c) : by_warp(plane, from, r, c);
        if (LANES == 1 || lane_id() == 0) y[o] = store<X>(sum / C(r.divisor() * c.divisor()));
    }
}

template <class X, class C = compute_t<X>>
__device__ __forceinline__ void adjoint(const X* dy, X* dx, const Planes& from, const AXIS& rows, const AXIS& columns) {
    i64 inputs = from.starts.numel * rows.n * columns.n;
    for (i64 o = thread_in_grid(); o < inputs; o += threads_in_grid()) {
        Pixel p = pixel(o, rows.n, columns.n);
        Range r_readers = rows.readers(p.i), c_readers = columns.readers(p.j);
        const X* plane = from.plane(dy, p.plane);
        C sum = C(0);
        for (i64 i = r_readers.first; i < r_readers.end; i++) {
            auto r = rows.template reads<C>(i);
            if (!r.has(p.i)) continue;
            C line = C(0);
            for (i64 j = c_readers.first; j < c_readers.end; j++) {
                auto c = columns.template reads<C>(j);
                if (c.has(p.j)) line += c.weight(p.j) * (load(plane[i * from.row + j * from.column]) / C(r.divisor() * c.divisor()));
            }
            sum += r.weight(p.i) * line;
        }
        dx[o] = store<X>(sum);
    }
}

#define KERNELS(X)                                                                                         \
    extern "C" __global__ void map_by_thread_##X(const X* x, X* y, Planes from, AXIS rows, AXIS columns) { \
        map<1>(x, y, from, rows, columns);                                                                 \
    }                                                                                                      \
    extern "C" __global__ void map_by_warp_##X(const X* x, X* y, Planes from, AXIS rows, AXIS columns) {   \
        map<WARP>(x, y, from, rows, columns);                                                              \
    }                                                                                                      \
    extern "C" __global__ void adjoint_##X(const X* dy, X* dx, Planes from, AXIS rows, AXIS columns) {     \
        adjoint(dy, dx, from, rows, columns);                                                              \
    }
KERNELS(f32)
KERNELS(f64)
KERNELS(f16)
KERNELS(bf16)
