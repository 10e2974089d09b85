// The gradient of Σ scale·loss (cross_entropy.cu), with p = e^{x − logsumexp}:
//
//     dx[c] = scale·(p[c]·((1 − ε)·w[y] + ε/V·Σ w) − (1 − ε)·w[y]·[c = y] − ε/V·w[c]),
//
// 0 where the target is to be ignored.
//
// One read and one write of each element (rows.cuh).
#include "rows.cuh"

// What is known of a row: the factor of p, what the target's class loses, and what every class does, times its weight.
template <class C> struct Factors {
    C lse, mass, hit, even;
    i64 target;
    const C* weight;
};

template <class ROW, class X = typename ROW::Element, class C = typename ROW::C>
__device__ __forceinline__ void cross_entropy_backward(ROW& row, const Factors<C>& f, bool ignored, const Line<X>& dx) {
    row.each([&](i64 i, const typename ROW::Chunk(&chunks)[1], int) {
        typename ROW::Chunk out;
#pragma unroll
        for (int j = 0; j < ROW::LENGTH; j++) {
            i64 c = i + j;
            C v = f.mass * exp(load(chunks[0].at[j]) - f.lse) - (f.weight ? f.even * f.weight[c] : f.even);
            out.at[j] = store<X>(ignored ? C(0) : c == f.target ? v - f.hit : v);
        }
        write<ROW::LENGTH>(dx, i, out);
    });
}

// `weight_sum` is Σ w, null where there are no weights.
#define KERNEL(name, TEAM, ROW, LENGTH)                                                                                 \
    extern "C" __global__ void __launch_bounds__(ROW<TEAM, X, LENGTH, 1>::THREADS, 1)                                   \
    name(const X* x, X* dx, Rows<2> rows, const i64* targets, const C* weight,                                          \
         const C* weight_sum, i64 ignore, f64 smoothing, const C* lse,                                                  \
         const C* scale) {                                                                                              \
        i64 at[2], r = TEAM::row(), n = rows.find(r, at);                                                               \
        if (!rows.has(r)) return;                                                                                       \
        i64 target = targets[r];                                                                                        \
        bool ignored = target == ignore || target < 0 || target >= n;                                                   \
        C even = C(smoothing) / C(n), hit = (C(1) - C(smoothing)) * (weight && !ignored ? weight[target] : C(1));       \
        C mass = hit + even * (weight_sum ? *weight_sum : C(n));                                                        \
        Factors<C> factors{lse[r], scale[r] * mass, scale[r] * hit, scale[r] * even, target,                            \
                           smoothing != 0.0 ? weight : nullptr};                                                        \
        ROW<TEAM, X, LENGTH, 1> row({{x + at[0], rows.strides[0]}}, n);                                                 \
        cross_entropy_backward(row, factors, ignored, Line<X>{dx + at[1], rows.strides[1]});                            \
    }
KERNELS(KERNEL)
