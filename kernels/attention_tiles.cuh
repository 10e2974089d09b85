// How attention's matrices lie in shared memory and in registers.
//
// A program is for one type and one width: -DTYPE=bf16, -DHEAD=64 (a row's numbers in shared memory; D and Dv are at most
// that, the rest is zeros). A block has so many -DWARPS, each of them -DFRAGMENTS times 16 rows of its own, and walks over
// other rows, -DCOLUMNS at a time, so called because they are the columns of the matrix of scores.
#pragma once
#include "attention_operands.cuh"

constexpr int WARP_ROWS = FRAGMENTS * 16, ROWS = WARPS * WARP_ROWS, THREADS = WARPS * WARP;
// A warp's rows by COLUMNS, or by HEAD, spread over its lanes: numbers [f][j] of lane 4 g + t are those at rows g, g, g + 8
// and g + 8 of the 16 rows f and at columns 2 t and 2 t + 1, twice, of the 8 columns j.
typedef Real Scores[FRAGMENTS][COLUMNS / 8][4];
typedef Real Sums[FRAGMENTS][HEAD / 8][4];

// Of number e: its row and column there.
__device__ __forceinline__ int row_of(int f, int e) { return f * 16 + e / 2 * 8 + lane_id() / 4; }
__device__ __forceinline__ int column_of(int j, int e) { return j * 8 + lane_id() % 4 * 2 + e % 2; }
// The first row of this warp in the block's.
__device__ __forceinline__ int first_row() { return threadIdx.x / WARP * WARP_ROWS; }

// The sum, or the maximum, of a row over the four lanes that share it.
template <class OP> __device__ __forceinline__ Real over_row(Real x) {
    x = OP::combine(x, other_lane(x, 1));
    return OP::combine(x, other_lane(x, 2));
}

// Where a chunk of a row lies. Eight rows below each other are read at a time, and all of them from other banks.
__device__ __forceinline__ int offset(int row, int chunk) {
    int swap = CHUNKS >= 8 ? row % 8 : row * CHUNKS / 8 % CHUNKS;
    return row * HEAD + (chunk ^ swap) * CHUNK;
}
