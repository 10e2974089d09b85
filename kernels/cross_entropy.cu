// The loss of each row of logits, with ln p = (x − max x) − ln Σ e^{x − max x}, ε the label smoothing and y the target:
//
//     loss = −(1 − ε)·w[y]·ln p[y] − ε/V·Σ_c w[c]·ln p[c],
//
// 0 where the target is to be ignored; also each row's logsumexp and the weight with which it counts.
//
// The logits are read once (rows.cuh), a row that no block can keep too, unless there is smoothing; nothing of their size is written.
#include "exponentials.cuh"

template <class C> struct Options {
    // Of each class; null for ones.
    const C* weight;
    i64 ignore;
    C smoothing;

    __device__ __forceinline__ C of(i64 c) const { return weight ? weight[c] : C(1); }
};

template <class ROW, class X = typename ROW::Element, class C = typename ROW::C>
__device__ __forceinline__ void cross_entropy(ROW& row, const Line<const X>& x, i64 target, const Options<C>& o, C& loss, C& lse, C& counts) {
    auto e = exponentials(row);
    C log_sum = log(e.sum), spread = C(0);
    if (o.smoothing != C(0)) {
        row.each([&](i64 i, const typename ROW::Chunk(&chunks)[1], int) {
#pragma unroll
            for (int j = 0; j < ROW::LENGTH; j++) spread += o.of(i + j) * ((load(chunks[0].at[j]) - e.max) - log_sum);
        });
        spread = ROW::Team::template reduce<Sum<C>>(spread);
    }
    lse = e.max + log_sum;
    loss = counts = C(0);
    // Out of range, it is an error that `index_check.cu` reports.
    if (target == o.ignore || target < 0 || target >= row.n) return;
    counts = o.of(target);
    loss = -(C(1) - o.smoothing) * counts * ((load(x.start[target * x.stride]) - e.max) - log_sum);
    if (o.smoothing != C(0)) loss -= o.smoothing / C(row.n) * spread;
}

#define KERNEL(name, TEAM, ROW, LENGTH)                                                                                 \
    extern "C" __global__ void __launch_bounds__(ROW<TEAM, X, LENGTH, 1>::THREADS, 1)                                   \
    name(const X* x, Rows<1> rows, const i64* targets, const C* weight, i64 ignore, f64 smoothing,                      \
         C* loss, C* lse, C* counts) {                                                                                  \
        i64 at[1], r = TEAM::row(), n = rows.find(r, at);                                                               \
        Line<const X> line{x + at[0], rows.strides[0]};                                                                 \
        ROW<TEAM, X, LENGTH, 1> row({line}, n);                                                                         \
        C l, s, c;                                                                                                      \
        Options<C> options{weight, ignore, C(smoothing)};                                                               \
        cross_entropy(row, line, rows.has(r) ? targets[r] : ignore, options, l, s, c);                                  \
        if (!rows.has(r) || TEAM::rank() > 0) return;                                                                   \
        loss[r] = l;                                                                                                    \
        lse[r] = s;                                                                                                     \
        counts[r] = c;                                                                                                  \
    }
KERNELS(KERNEL)
