// What attention is given: -DTYPE=bf16 for operands of bf16, and -DHEAD=64 for room for 64 numbers in a row; D and Dv are at most
// that.
#pragma once
#include "philox.cuh"
#include "reduction.cuh"

typedef compute_t<TYPE> Real;
// Numbers in 16 bytes, which is what one copy moves.
constexpr int CHUNK = 16 / sizeof(TYPE), CHUNKS = HEAD / CHUNK;

// The same, but for `Rows`, as `Sizes` in `crates/cuda/src/ops/attention.rs`.
struct Attention {
    i32 heads, key_heads, tq, tk;
    // Query i sees the keys i + offset − window < j ≤ i + offset.
    i32 offset, window;
    // The mask: of which kind, and where its numbers are.
    enum { NONE, BOOLEAN, ADDITIVE };
    i32 kind, mask_query, mask_key;
    i64 mask_batch, mask_head;
    const void* mask;
    // How many keys of each batch are there, if not all are.
    const i64* key_lengths;
    // Scores are scale · q·k + mask, weights 2^(factor · score − …). Where nothing comes between the two, scale is 1 and
    // factor does both.
    f64 scale, factor;
    // Of dropout: what the weights that are kept are multiplied by, 0 if there is no dropout; which random numbers keep them.
    f64 kept;
    RandomStream random;
    u64 threshold;

    // The keys that are there, of so many.
    __device__ __forceinline__ i32 keys(int batch) const {
        if (!key_lengths) return tk;
        i64 there = key_lengths[batch];
        return there < 0 ? 0 : there < tk ? (i32)there : tk;
    }
};

// `[B, H, T, width]`, rows in runs of memory.
struct Rows {
    TYPE* data;
    i64 batch, head, time;
    i64 width;

    __device__ __forceinline__ TYPE* row(int b, int h, int t) const { return data + b * batch + h * head + t * time; }
};

// 2^x, as exact as the operands need it.
__device__ __forceinline__ f32 power_of_two(f32 x) { return sizeof(TYPE) == 2 ? ex2_approx(x) : exp2(x); }
__device__ __forceinline__ f64 power_of_two(f64 x) { return exp2(x); }

// What a maximum m of scores is subtracted as. While all is hidden any finite number will do: the weights are 2^−∞ = 0.
__device__ __forceinline__ Real shift_of(Real m, Real factor) { return m == smallest_of(m) ? Real(0) : m * factor; }

// The logsumexp of scores whose largest is m, and whose weights' sum is l.
__device__ __forceinline__ Real logsumexp(Real m, Real l, Real factor) {
    constexpr Real LN_2 = Real(0.69314718055994530942);
    return l == 0 ? smallest_of(l) : (m * factor + log2(l)) * LN_2;
}
