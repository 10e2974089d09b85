// The gradients of O = (P ∘ M) V, P = softmax(S), S = scale · Q Kᵀ + mask, where M is dropout's zeros and 1/(1 − p)s (T. Dao 2023,
// arXiv:2307.08691). The weights are made again from L = logsumexp(S), with Δ = rowsum(dO ∘ O):
//
//     P = e^(S − L)              dV = (P ∘ M)ᵀ dO
//     dS = P ∘ (M ∘ dO Vᵀ − Δ)   dQ = scale · dS K,   dK = scale · dSᵀ Q,   dmask = dS
//
// Two kernels of one form. A block keeps its rows X₁ and X₂ and walks over rows Y₁ and Y₂, whose copies are one step ahead:
//
//     of queries: X = Q, dO and Y = K, V:  S = X₁ Y₁ᵀ,   M ∘ P's gradient = X₂ Y₂ᵀ,   dQ += dS Y₁
//     of keys:    X = K, V and Y = Q, dO:  Sᵀ = X₁ Y₁ᵀ,  …ᵀ = X₂ Y₂ᵀ,                dK += dSᵀ Y₁,   dV += (P ∘ M)ᵀ Y₂
//
// So nobody adds to what another block adds to, and the sums come out the same every time; the price is that S and its gradient are
// made twice: 7 products instead of 5. Where rows are so wide that registers do not hold both sums of the second kernel,
// each has a kernel of its own. Tensor cores and registers limit all of this.
#include "attention.cuh"

// What the rows of S need: L · log₂ e, and ∞ for a query that sees nothing, so that its weights are 2^−∞ = 0; and Δ.
struct alignas(2 * sizeof(Real)) Statistics { Real lse, delta; };

// A warp for each place of a head, of which there are as many as queries, or more: those behind the last are as if they saw nothing.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_statistics(Rows out, Rows d_out, const Real* lse, Statistics* statistics, i32 heads, i32 tq, i32 places, i64 all) {
    i64 place = (i64)blockIdx.x * WARPS + threadIdx.x / WARP, matrix = place / places;
    if (place >= all) return;
    int t = place % places, h = matrix % heads, b = matrix / heads;
    if (t >= tq) {
        if (lane_id() == 0) statistics[place] = {largest_of(Real(0)), 0};
        return;
    }
    const TYPE *o = out.row(b, h, t), *g = d_out.row(b, h, t);
    Real delta = 0;
    for (i64 i = lane_id(); i < out.width; i += WARP) delta += load(o[i]) * load(g[i]);
    delta = warp_reduce<Sum<Real>>(delta);
    constexpr Real LOG2_E = Real(1.4426950408889634074);
    Real l = lse[matrix * tq + t];
    if (lane_id() == 0) statistics[place] = {l == smallest_of(l) ? largest_of(l) : l * LOG2_E, delta};
}

// The operands: their rows, and what the block walks over.
struct Operands {
    Rows x1, x2, y1, y2;
    const Statistics* statistics;
};

// Statistics of queries in shared memory, behind the rows of each step.
__device__ __forceinline__ void copy_statistics(Statistics* to, const Statistics* from, int queries) {
    for (int i = threadIdx.x; i < COLUMNS; i += THREADS) {
        int bytes = i < queries ? sizeof(Statistics) : 0;
        if (sizeof(Statistics) == 16) cp_async_16(to + i, from + (bytes ? i : 0), bytes);
        else cp_async_8(to + i, from + (bytes ? i : 0), bytes);
    }
}

// Scores become P ∘ M, and the products of dO and V become dS; `of(f, n, e)` are the statistics of a number's query.
template <class F>
__device__ __forceinline__ void gradients(Scores& p, Scores& ds, const Attention& a, u64 kept, F of) {
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                Statistics row = of(f, n, e);
                Real weight = power_of_two(p[f][n][e] * Real(a.factor) - row.lse), m = 1;
                if (a.kept != 0) m = is_kept(kept, f, n, e) ? Real(a.kept) : Real(0);
                p[f][n][e] = weight * m;
                ds[f][n][e] = weight * (ds[f][n][e] * m - row.delta);
            }
}

__device__ __forceinline__ void scale(Sums& x, Real by) {
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int n = 0; n < HEAD / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) x[f][n][e] *= by;
}

// Shared memory: X₁, X₂, and a ring of two steps, each of Y₁, Y₂ and statistics.
constexpr int STEP = 2 * COLUMNS * HEAD + COLUMNS * sizeof(Statistics) / sizeof(TYPE);

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_backward_queries(Operands x, Rows dq, Real* d_mask, f64 by, const Attention a) {
    DYNAMIC_SHARED(TYPE, x1);
    TYPE *x2 = x1 + ROWS * HEAD, *ring = x2 + ROWS * HEAD;
    Place at = place<true>(a, a.heads, a.tq, blockIdx.x);
    int key_head = at.head / (a.heads / a.key_heads), first = at.row + first_row();
    int start = first_seen(a, at), end = end_seen(a, at);
    auto fetch = [&](int j) {
        TYPE* step = ring + j / COLUMNS % 2 * STEP;
        copy_rows<COLUMNS>(step, x.y1.row(at.batch, key_head, j), x.y1, at.keys - j);
        copy_rows<COLUMNS>(step + COLUMNS * HEAD, x.y2.row(at.batch, key_head, j), x.y2, at.keys - j);
    };
    copy_rows<ROWS>(x1, x.x1.row(at.batch, at.head, at.row), x.x1, a.tq - at.row);
    copy_rows<ROWS>(x2, x.x2.row(at.batch, at.head, at.row), x.x2, a.tq - at.row);
    fetch(start);
    Statistics rows[FRAGMENTS][2];
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
        for (int i = 0; i < 2; i++) {
            i64 query = min(first + row_of(f, 2 * i), a.tq - 1);
            rows[f][i] = x.statistics[((i64)at.batch * a.heads + at.head) * a.tq + query];
        }
    Sums sums = {};
#pragma unroll 1
    for (int j = start; j < end; j += COLUMNS) {
        // This step is there for all, and nobody reads the last one any more.
        cp_async_wait_all();
        __syncthreads();
        if (j + COLUMNS < end) fetch(j + COLUMNS);
        const TYPE* y1 = ring + j / COLUMNS % 2 * STEP;
        Scores p = {}, ds = {};
        multiply_rows(p, x1, y1);
        multiply_rows(ds, x2, y1 + COLUMNS * HEAD);
        if (needs_mask(a)) mask<false>(p, a, at, first, j);
        if (needs_hiding(a, at, first, WARP_ROWS, j, COLUMNS)) hide<false>(p, a, at, first, j);
        gradients(p, ds, a, a.kept != 0 ? kept<false>(a, at, first, j) : 0, [&](int f, int, int e) { return rows[f][e / 2]; });
        if (d_mask) store_mask<false>(d_mask, ds, a, at, first, j);
        multiply_weights(sums, ds, y1);
    }
    cp_async_wait_all();
    __syncthreads();
    scale(sums, Real(by));
    store_rows(sums, x1, dq.row(at.batch, at.head, at.row), dq, a.tq - at.row);
}

// dK, if KEYS, and dV, if VALUES, of some keys of one head: over the queries of all heads that share it.
template <bool KEYS, bool VALUES>
__device__ __forceinline__ void backward_keys(TYPE* x1, const Operands& x, const Rows& dk, const Rows& dv, Real by, const Attention& a) {
    TYPE *x2 = x1 + ROWS * HEAD, *ring = x2 + ROWS * HEAD;
    Place at = place<false>(a, a.key_heads, a.tk, blockIdx.x);
    int group = a.heads / a.key_heads, j = at.row + first_row();
    // Queries before the first that sees any of these keys, and behind the last, do nothing here.
    i64 behind = (i64)at.row + ROWS - 1 + a.window - a.offset;
    int start = max(at.row - a.offset, 0) / COLUMNS * COLUMNS, stop = behind < a.tq ? (int)behind : a.tq;
    int end = start < stop && at.row < at.keys ? (at.head + 1) * group : 0;
    auto fetch = [&](const Place& of, TYPE* to) {
        copy_rows<COLUMNS>(to, x.y1.row(of.batch, of.head, of.row), x.y1, a.tq - of.row);
        copy_rows<COLUMNS>(to + COLUMNS * HEAD, x.y2.row(of.batch, of.head, of.row), x.y2, a.tq - of.row);
        const Statistics* statistics = x.statistics + ((i64)of.batch * a.heads + of.head) * a.tq + of.row;
        copy_statistics(reinterpret_cast<Statistics*>(to + 2 * COLUMNS * HEAD), statistics, a.tq - of.row);
    };
    copy_rows<ROWS>(x1, x.x1.row(at.batch, at.head, at.row), x.x1, at.keys - at.row);
    if (KEYS) copy_rows<ROWS>(x2, x.x2.row(at.batch, at.head, at.row), x.x2, at.keys - at.row);
    Place next = {at.batch, at.head * group, start, at.keys};
    if (next.head < end) fetch(next, ring);
    Sums of_keys = {}, of_values = {};
#pragma unroll 1
    for (int step = 0; next.head < end; step++) {
        Place of = next;
        next.row += COLUMNS;
        if (next.row >= stop) next = {at.batch, of.head + 1, start, at.keys};
        cp_async_wait_all();
        __syncthreads();
        if (next.head < end) fetch(next, ring + (step + 1) % 2 * STEP);
        const TYPE *y1 = ring + step % 2 * STEP, *y2 = y1 + COLUMNS * HEAD;
        const Statistics* rows = reinterpret_cast<const Statistics*>(y2 + COLUMNS * HEAD);
        Scores p = {}, ds = {};
        multiply_rows(p, x1, y1);
        if (KEYS) multiply_rows(ds, x2, y2);
        if (needs_mask(a)) mask<true>(p, a, of, of.row, j);
        if (needs_hiding(a, of, of.row, COLUMNS, j, WARP_ROWS)) hide<true>(p, a, of, of.row, j);
        gradients(p, ds, a, a.kept != 0 ? kept<true>(a, of, of.row, j) : 0, [&](int, int n, int e) { return rows[column_of(n, e)]; });
        if (VALUES) multiply_weights(of_values, p, y2);
        if (KEYS) multiply_weights(of_keys, ds, y1);
    }
    cp_async_wait_all();
    __syncthreads();
    if (KEYS) {
        scale(of_keys, by);
        store_rows(of_keys, x1, dk.row(at.batch, at.head, at.row), dk, a.tk - at.row);
    }
    if (VALUES) store_rows(of_values, x2, dv.row(at.batch, at.head, at.row), dv, a.tk - at.row);
}

// Whether registers hold the sums of keys and of values together.
constexpr bool TOGETHER = HEAD * sizeof(Real) <= 512;

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_backward_keys(Operands x, Rows dk, Rows dv, f64 by, const Attention a) {
    DYNAMIC_SHARED(TYPE, shared);
    backward_keys<true, TOGETHER>(shared, x, dk, dv, Real(by), a);
}
// For where they do not.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_backward_values(Operands x, Rows dk, Rows dv, f64 by, const Attention a) {
    DYNAMIC_SHARED(TYPE, shared);
    if constexpr (!TOGETHER) backward_keys<false, true>(shared, x, dk, dv, Real(by), a);
}
