// Attention's two kinds of product on tensor cores: 16-bit numbers, f32 sums.
//
// Each takes its left side from a warp's own rows, and its right side from a tile that all warps read; what lies there as
// rows is one operand of the first kind and, read transposed, of the second, so nothing is ever transposed in memory.
#pragma once
#include "attention_tiles.cuh"
#include "tensor_core.cuh"

// s += A Bᵀ: this warp's rows of tile a, all rows of tile b.
__device__ __forceinline__ void multiply_rows(Scores& s, const TYPE* a, const TYPE* b) {
    // Of each four 8 × 8 matrices: rows 0…7 and 8…15 of the first half of 16 columns, then of the second.
    int row = lane_id() % 16, half = lane_id() / 16;
#pragma unroll
    for (int k = 0; k < HEAD / 16; k++) {
        u32 left[FRAGMENTS][4];
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++) ldmatrix_x4(left[f], a + offset(first_row() + f * 16 + row, 2 * k + half));
#pragma unroll
        for (int n = 0; n < COLUMNS / 16; n++) {
            u32 right[4];
            ldmatrix_x4(right, b + offset(n * 16 + row, 2 * k + half));
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++) {
                mma(s[f][2 * n], left[f], {right[0], right[2]}, TYPE{});
                mma(s[f][2 * n + 1], left[f], {right[1], right[3]}, TYPE{});
            }
        }
    }
}

// o += P B: weights in registers, rounded to 16 bits, and all rows of tile b. What the lanes hold of two neighbouring 8
// columns of P is exactly what they have to bring as a left operand.
__device__ __forceinline__ void multiply_weights(Sums& o, const Scores& p, const TYPE* b) {
    int row = lane_id() % 16, half = lane_id() / 16;
#pragma unroll
    for (int k = 0; k < COLUMNS / 16; k++) {
        u32 left[FRAGMENTS][4];
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const f32* pair = &p[f][2 * k + i / 2][i % 2 * 2];
                left[f][i] = pack(pair[0], pair[1], TYPE{});
            }
#pragma unroll
        for (int n = 0; n < HEAD / 16; n++) {
            u32 right[4];
            ldmatrix_x4_trans(right, b + offset(k * 16 + row, 2 * n + half));
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++) {
                mma(o[f][2 * n], left[f], {right[0], right[1]}, TYPE{});
                mma(o[f][2 * n + 1], left[f], {right[2], right[3]}, TYPE{});
            }
        }
    }
}
