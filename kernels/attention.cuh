// What attention's kernels of many queries have for any card: the ways of rows into and out of shared memory, and the products.
#pragma once
#include "attention_scores.cuh"
#if TENSOR_CORES
#include "attention_mma.cuh"
#else
#include "attention_exact.cuh"
#endif

// Copies LINES rows, of which `rows` are there, and zeros behind them.
template <int LINES> __device__ __forceinline__ void copy_rows(TYPE* tile, const TYPE* from, const Rows& x, int rows) {
    constexpr int STEP = THREADS / CHUNKS;
    static_assert(LINES % STEP == 0, "all threads copy the same number of chunks");
    int first = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    bool there = chunk * CHUNK < x.width;
    from += first * x.time + chunk * CHUNK;
#pragma unroll
    for (int p = 0; p < LINES; p += STEP)
        cp_async_16(tile + offset(first + p, chunk), from + p * x.time, there && first + p < rows ? 16 : 0);
}

// Rounds a warp's rows into its part of a tile, which nobody else reads, and from there whole rows go to memory.
__device__ __forceinline__ void store_rows(const Sums& sums, TYPE* tile, TYPE* to, const Rows& x, int rows) {
    __syncwarp();
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int n = 0; n < HEAD / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
                int column = column_of(n, e);
                TYPE* pair = tile + offset(first_row() + row_of(f, e), column / CHUNK) + column % CHUNK;
                store_pair(pair, sums[f][n][e], sums[f][n][e + 1]);
            }
    __syncwarp();
    for (int i = lane_id(); i < WARP_ROWS * CHUNKS; i += WARP) {
        int row = first_row() + i / CHUNKS, chunk = i % CHUNKS;
        if (row >= rows || chunk * CHUNK >= x.width) continue;
        *reinterpret_cast<Vector<TYPE>*>(to + row * x.time + chunk * CHUNK) =
            *reinterpret_cast<const Vector<TYPE>*>(tile + offset(row, chunk));
    }
}
