// O = dropout(softmax(scale · Q Kᵀ + mask)) V and L = logsumexp(scale · Q Kᵀ + mask), without the Tq × Tk scores ever being
// in memory (FlashAttention-2: T. Dao 2023, arXiv:2307.08691).
//
// A block has some queries of one head, each warp its own, and walks over the keys, COLUMNS at a time. Of each query it keeps
// the largest score so far m, the sum l of 2^(s − m), and the sum o of those times V; further scores s do
//
//     m' = max(m, max s),   l' = 2^(m − m') l + Σ 2^(s − m'),   o' = 2^(m − m') o + 2^(s − m') V
//
// and o / l is the answer. Powers are of two, log₂ e being a factor of the scores, as the hardware knows no others.
//
// While the warps multiply queries and keys the values are on their way to shared memory, while they multiply weights and
// values the next keys are. Weights go from one product to the next in registers. What limits the kernel are the tensor cores
// and, where D is small, the powers: one for each 4 D operations, on a unit with 1/64 of the tensor cores' speed.
#include "attention.cuh"

// A warp's queries so far. What a lane knows of l is its own columns' share.
struct Running {
    Real m[FRAGMENTS][2], l[FRAGMENTS][2];
    Sums o;

    __device__ __forceinline__ void begin() {
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
            for (int i = 0; i < 2; i++) {
                m[f][i] = smallest_of(Real(0));
                l[f][i] = 0;
            }
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
            for (int n = 0; n < HEAD / 8; n++)
                for (int e = 0; e < 4; e++) o[f][n][e] = 0;
    }

    // Scores become weights relative to the new maximum. A NaN is no maximum, but makes a NaN of l.
    __device__ __forceinline__ void online_softmax(Scores& s, Real factor) {
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                Real top = m[f][i];
#pragma unroll
                for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
                    for (int e = 2 * i; e < 2 * i + 2; e++) top = s[f][n][e] > top ? s[f][n][e] : top;
                top = over_row<Max<Real>>(top);
                Real shift = shift_of(top, factor), decay = power_of_two(m[f][i] * factor - shift), sum = 0;
#pragma unroll
                for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
                    for (int e = 2 * i; e < 2 * i + 2; e++) {
                        s[f][n][e] = power_of_two(s[f][n][e] * factor - shift);
                        sum += s[f][n][e];
                    }
                m[f][i] = top;
                l[f][i] = l[f][i] * decay + sum;
#pragma unroll
                for (int n = 0; n < HEAD / 8; n++)
#pragma unroll
                    for (int e = 2 * i; e < 2 * i + 2; e++) o[f][n][e] *= decay;
            }
    }

    // o becomes the answer; L goes to memory. A query that sees nothing has zeros and −∞, whatever the values are.
    __device__ __forceinline__ void finish(Real kept, Real factor, Real* lse, int queries) {
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                Real sum = over_row<Sum<Real>>(l[f][i]);
                int row = first_row() + row_of(f, 2 * i);
                if (lane_id() % 4 == 0 && row < queries) lse[row] = logsumexp(m[f][i], sum, factor);
                Real share = kept / sum;
#pragma unroll
                for (int n = 0; n < HEAD / 8; n++)
#pragma unroll
                    for (int e = 2 * i; e < 2 * i + 2; e++) o[f][n][e] = sum == 0 ? Real(0) : o[f][n][e] * share;
            }
    }
};

__device__ __forceinline__ void drop(Scores& weights, u64 kept) {
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) weights[f][n][e] = is_kept(kept, f, n, e) ? weights[f][n][e] : Real(0);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention(Rows q, Rows k, Rows v, Rows out, Real* lse, const Attention a) {
    DYNAMIC_SHARED(TYPE, queries);
    TYPE *keys = queries + ROWS * HEAD, *values = keys + COLUMNS * HEAD;
    Place at = place<true>(a, a.heads, a.tq);
    int key_head = at.head / (a.heads / a.key_heads), first = at.row + first_row();
    int start = first_seen(a, at), end = end_seen(a, at);

    copy_rows<ROWS>(queries, q.row(at.batch, at.head, at.row), q, a.tq - at.row);
    copy_rows<COLUMNS>(keys, k.row(at.batch, key_head, start), k, at.keys - start);
    Running running;
    running.begin();
#pragma unroll 1
    for (int j = start; j < end; j += COLUMNS) {
        // Keys are there for all, and nobody reads the last values any more.
        cp_async_wait_all();
        __syncthreads();
        copy_rows<COLUMNS>(values, v.row(at.batch, key_head, j), v, at.keys - j);
        Scores s = {};
        multiply_rows(s, queries, keys);
        // The same the other way round.
        cp_async_wait_all();
        __syncthreads();
        if (j + COLUMNS < end) copy_rows<COLUMNS>(keys, k.row(at.batch, key_head, j + COLUMNS), k, at.keys - j - COLUMNS);
        if (needs_mask(a)) mask<false>(s, a, at, first, j);
        if (needs_hiding(a, at, first, WARP_ROWS, j, COLUMNS)) hide<false>(s, a, at, first, j);
        running.online_softmax(s, Real(a.factor));
        if (a.kept != 0) drop(s, kept<false>(a, at, first, j));
        multiply_weights(running.o, s, values);
    }
    cp_async_wait_all();
    __syncthreads();
    i64 row = ((i64)at.batch * a.heads + at.head) * a.tq + at.row;
    running.finish(a.kept != 0 ? Real(a.kept) : Real(1), Real(a.factor), lse + row, a.tq - at.row);
    store_rows(running.o, queries, out.row(at.batch, at.head, at.row), out, a.tq - at.row);
}
