// The gradients of norm.cuh. With x̂ = (x − mean)·rstd and means over the row,
//
//     dx = rstd·(g·w − mean(g·w) − x̂·mean(g·w·x̂)),    dweight = Σ g·x̂ and dbias = Σ g over all rows;
//
// where CENTERED is false, the mean and mean(g·w) are 0, and there is no bias. With -DADDED, where x is a sum that others use too, their
// gradient of it is added to dx.
//
// Two reads and one write of each element: a block takes one row after another, and each thread adds up its columns' share of dweight
// and dbias on the way, in registers. Each block leaves its sums in a row of `sums`, which a reduction adds up; how many blocks
// there are depends on the shape alone, so the same numbers give the same bits.
#pragma once
// Half of what other kernels keep: the sums take registers too, and are not packed.
#define KEPT 32
#include "rows.cuh"

#ifdef ADDED
constexpr int OPERANDS = 4;
#define OTHERS const X* others,
#define OTHERS_ROW Line<const X>{others + at[2], rows.strides[2]}
#else
constexpr int OPERANDS = 3;
#define OTHERS
#define OTHERS_ROW Line<const X>{nullptr, 1}
#endif

constexpr int BACKWARD_THREADS = 512;

// A block's sums of each column. In registers until the end:
template <class ROW> struct ColumnSums;
template <class TEAM, class X, int LENGTH, int N> struct ColumnSums<InRegisters<TEAM, X, LENGTH, N>> {
    typedef InRegisters<TEAM, X, LENGTH, N> ROW;
    typedef Two<typename ROW::C> Pair;
    static constexpr int WIDTH = ROW::CHUNKS * LENGTH * WARP;
    Pair own[ROW::CHUNKS * LENGTH];

    __device__ __forceinline__ ColumnSums(Pair*, i64) {
#pragma unroll
        for (int k = 0; k < ROW::CHUNKS * LENGTH; k++) own[k] = Pair{0, 0};
    }
    __device__ __forceinline__ void add(i64, int k, Pair v) { own[k] = SumTwo<typename ROW::C>::combine(own[k], v); }
    template <class F> __device__ __forceinline__ void each(i64 n, F f) {
#pragma unroll
        for (int k = 0; k < ROW::CHUNKS; k++)
            if (ROW::place(k) < n)
#pragma unroll
                for (int j = 0; j < LENGTH; j++) f(ROW::place(k) + j, own[k * LENGTH + j]);
    }
    __device__ __forceinline__ void finish(Pair* sums, i64 n) {
        if (TEAM::size() == blockDim.x) return each(n, [&](i64 i, Pair v) { sums[i] = v; });
        // The warps have had different rows: one after another, in shared memory.
        __shared__ Pair all[WIDTH];
        for (u32 warp = 0; warp < blockDim.x / WARP; warp++) {
            if (threadIdx.x / WARP == warp && n <= WIDTH)
                each(n, [&](i64 i, Pair v) { all[i] = warp == 0 ? v : SumTwo<typename ROW::C>::combine(all[i], v); });
            __syncthreads();
        }
        for (i64 i = threadIdx.x; i < n; i += blockDim.x) sums[i] = all[i];
    }
};
// or in memory all the time, where they do not fit. An element is always the same thread's.
template <class TEAM, class X, int LENGTH, int N> struct ColumnSums<InMemory<TEAM, X, LENGTH, N>> {
    typedef Two<compute_t<X>> Pair;
    Pair* sums;

    __device__ __forceinline__ ColumnSums(Pair* sums, i64 n) : sums(sums) {
        if (sums == nullptr) return;
        for (i64 i = (i64)TEAM::rank() * LENGTH; i < n; i += (i64)TEAM::size() * LENGTH)
            for (int j = 0; j < LENGTH; j++) sums[i + j] = Pair{0, 0};
    }
    __device__ __forceinline__ void add(i64 i, int, Pair v) {
        if (sums != nullptr) sums[i] = SumTwo<compute_t<X>>::combine(sums[i], v);
    }
    __device__ __forceinline__ void finish(Pair*, i64) {}
};

// Calls f(i, j, place, g, g·w, x̂) for each element of a row that holds x and g: element i + j, this thread's number `place`.
template <class ROW, class F, class X = typename ROW::Element, class C = typename ROW::C>
__device__ __forceinline__ void each_element(ROW& row, const X* weight, C mean, C rstd, F f) {
    row.each([&](i64 i, const typename ROW::Chunk(&chunks)[2], int k) {
        typename ROW::Chunk w;
        if (weight) w = read<ROW::LENGTH>(Line<const X>{weight, 1}, i);
#pragma unroll
        for (int j = 0; j < ROW::LENGTH; j++) {
            C g = load(chunks[1].at[j]), gw = weight ? g * load(w.at[j]) : g;
            f(i, j, k * ROW::LENGTH + j, g, gw, (load(chunks[0].at[j]) - mean) * rstd);
        }
    });
}

template <class ROW, class X = typename ROW::Element, class C = typename ROW::C>
__device__ __forceinline__ void norm_backward(ROW& row, const X* weight, C mean, C rstd, C share, const Line<const X>& others, const Line<X>& dx, ColumnSums<ROW>& sums) {
    Two<C> means{0, 0};
    each_element(row, weight, mean, rstd, [&](i64, int, int, C, C gw, C normal) {
        means = SumTwo<C>::combine(means, {gw, gw * normal});
    });
    means = ROW::Team::template reduce<SumTwo<C>>(means);
    C a = CENTERED ? means.a * share : C(0), b = means.b * share;
    typename ROW::Chunk out;
    each_element(row, weight, mean, rstd, [&](i64 i, int j, int place, C g, C gw, C normal) {
        C d = rstd * (gw - a - normal * b);
#ifdef ADDED
        if (j == 0) out = read<ROW::LENGTH>(others, i);
        d += load(out.at[j]);
#endif
        out.at[j] = store<X>(d);
        if (j == ROW::LENGTH - 1) write<ROW::LENGTH>(dx, i, out);
        sums.add(i + j, place, {g * normal, g});
    });
}

#define BACKWARD_KERNEL(name, TEAM, ROW, LENGTH)                                                                        \
    extern "C" __global__ void __launch_bounds__(BACKWARD_THREADS, 1)                                                   \
    name(const X* x, const X* g, OTHERS X* dx, Rows<OPERANDS> rows, const X* weight, const C* means,                    \
         const C* rstds, Two<C>* sums) {                                                                                \
        typedef ROW<TEAM, X, LENGTH, 2> Row;                                                                            \
        if (sums != nullptr) sums += blockIdx.x * rows.n;                                                               \
        ColumnSums<Row> columns(sums, rows.n);                                                                          \
        for (i64 r = TEAM::row(); rows.has(r); r += (i64)gridDim.x * (blockDim.x / TEAM::size())) {                     \
            i64 at[OPERANDS], n = rows.find(r, at);                                                                     \
            Row row({{x + at[0], rows.strides[0]}, {g + at[1], rows.strides[1]}}, n);                                   \
            norm_backward(row, weight, CENTERED ? means[r] : C(0), rstds[r], C(rows.share),                             \
                          OTHERS_ROW, Line<X>{dx + at[OPERANDS - 1], rows.strides[OPERANDS - 1]}, columns);             \
        }                                                                                                               \
        if (sums != nullptr) columns.finish(sums, rows.n);                                                              \
    }
BACKWARD_KERNEL(by_warp, ByWarp, InRegisters, 1)
BACKWARD_KERNEL(by_warp_in_vectors, ByWarp, InRegisters, 16 / sizeof(X))
BACKWARD_KERNEL(by_block, ByBlock, InRegisters, 1)
BACKWARD_KERNEL(by_block_in_vectors, ByBlock, InRegisters, 16 / sizeof(X))
BACKWARD_KERNEL(by_block_again, ByBlock, InMemory, 1)
BACKWARD_KERNEL(by_block_again_in_vectors, ByBlock, InMemory, 16 / sizeof(X))
