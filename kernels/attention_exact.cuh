// Attention's two kinds of product for f32 and f64, in that type's own arithmetic, spread over lanes as tensor cores do it.
//
// Limited by shared memory, of which each number takes part in few products.
#pragma once
#include "attention_tiles.cuh"

__device__ __forceinline__ void store_pair(TYPE* to, Real low, Real high) {
    to[0] = low;
    to[1] = high;
}

// s += A Bᵀ: this warp's rows of tile a, all rows of tile b.
__device__ __forceinline__ void multiply_rows(Scores& s, const TYPE* a, const TYPE* b) {
    typedef Vector<TYPE> V;
#pragma unroll 1
    for (int k = 0; k < CHUNKS; k++) {
        V left[FRAGMENTS][2];
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
            for (int i = 0; i < 2; i++)
                left[f][i] = *reinterpret_cast<const V*>(a + offset(first_row() + row_of(f, 2 * i), k));
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                V right = *reinterpret_cast<const V*>(b + offset(column_of(n, e), k));
#pragma unroll
                for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
                    for (int i = 0; i < CHUNK; i++) {
                        s[f][n][e] += left[f][0].at[i] * right.at[i];
                        s[f][n][e + 2] += left[f][1].at[i] * right.at[i];
                    }
            }
    }
}

// o += P B: weights in registers, and all rows of tile b. The four lanes of a row tell each other their weights.
__device__ __forceinline__ void multiply_weights(Sums& o, const Scores& p, const TYPE* b) {
    // Eight columns are so many chunks.
    constexpr int SHARE = 8 / CHUNK;
    static_assert(CHUNKS >= 8, "see offset");
    int pair = lane_id() % 4 * 2;
#pragma unroll
    for (int k = 0; k < COLUMNS; k++) {
        Real left[FRAGMENTS][2];
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                left[f][i] = __shfl_sync(ALL_LANES, p[f][k / 8][2 * i + k % 2], k % 8 / 2, 4);
        // Of `offset(k, …)` all but this is constant.
        int place = (pair / CHUNK ^ k % SHARE) * CHUNK + pair % CHUNK;
#pragma unroll
        for (int n = 0; n < HEAD / 8; n++) {
            const TYPE* right = b + k * HEAD + (n * SHARE ^ k % 8 / SHARE * SHARE) * CHUNK + place;
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
                for (int e = 0; e < 4; e++) o[f][n][e] += left[f][e / 2] * right[e % 2];
        }
    }
}
