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
#include "attention_softmax.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    attention(Rows q, Rows k, Rows v, Rows out, Real* lse, const Attention a) {
    DYNAMIC_SHARED(TYPE, queries);
    TYPE *keys = queries + ROWS * HEAD, *values = keys + COLUMNS * HEAD;
    Place at = place<true>(a, a.heads, a.tq, blockIdx.x);
    int key_head = at.head / (a.heads / a.key_heads), first = at.row + first_row();
    int start = first_seen(a, at), end = end_seen(a, at);

    copy_rows<ROWS>(queries, q.row(at.batch, at.head, at.row), q, a.tq - at.row);
    copy_rows<COLUMNS>(keys, k.row(at.batch, key_head, start), k, at.keys - start);
    Softmax softmax;
    softmax.begin();
    Sums o = {};
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
        OfRows decay;
        softmax.step(s, Real(a.factor), decay);
        rescale(o, decay);
        if (a.kept != 0) drop(s, kept<false>(a, at, first, j));
        multiply_weights(o, s, values);
    }
    cp_async_wait_all();
    __syncthreads();
    i64 row = ((i64)at.batch * a.heads + at.head) * a.tq + at.row;
    softmax.finish(o, a, lse + row, a.tq - at.row);
    store_rows(o, queries, out.row(at.batch, at.head, at.row), out, a.tq - at.row);
}
