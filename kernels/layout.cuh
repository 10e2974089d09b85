// Operands of one shape with any strides; `crates/cuda/src/layout.rs` fills it in.
#pragma once
#include "types.cuh"

constexpr int DIMS = 10;

// How the operands of an elementwise kernel lie: anyhow; each row in whole chunks of 16 bytes, or the same number again and again;
// each operand a run of memory that begins at a multiple of 16 bytes.
enum Placement : i32 { APART, IN_CHUNKS, IN_A_RUN };

template <int N> struct Layout {
    i64 numel;
    i32 rank;
    Placement placement;
    i64 extents[DIMS];
    i64 strides[N][DIMS];

    // Where element `i`, counted in row-major order, lies in each operand; for fewer than 2³² elements. Divisions of 32 bits are
    // several times faster than those of 64, which are calls.
    __device__ __forceinline__ void find_near(u32 i, i64 (&at)[N]) const {
        for (int n = 0; n < N; n++) at[n] = 0;
        for (int d = rank - 1; d >= 0; d--) {
            u32 next = i / (u32)extents[d];
            for (int n = 0; n < N; n++) at[n] += (i64)(i - next * (u32)extents[d]) * strides[n][d];
            i = next;
        }
    }
    // For any number of them.
    __device__ __forceinline__ void find(i64 i, i64 (&at)[N]) const {
        if (numel <= 0xffffffffll) {
            find_near((u32)i, at);
        } else {
            for (int n = 0; n < N; n++) at[n] = 0;
            i64 left = i;
            for (int d = rank - 1; d >= 0; d--) {
                i64 next = left / extents[d];
                for (int n = 0; n < N; n++) at[n] += (left - next * extents[d]) * strides[n][d];
                left = next;
            }
        }
    }
};

// The thread's number in the grid, and the grid's size: loops go from the one in strides of the other.
__device__ __forceinline__ i64 thread_in_grid() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ i64 threads_in_grid() { return (i64)gridDim.x * blockDim.x; }

// Elements that are moved at once.
template <class X, int LENGTH> struct alignas(LENGTH * sizeof(X)) Chunk { X at[LENGTH]; };
template <int LENGTH, class X> __device__ __forceinline__ Chunk<X, LENGTH> read_chunk(const X* x) {
    return *(const Chunk<X, LENGTH>*)x;
}
template <int LENGTH, class X> __device__ __forceinline__ void write_chunk(X* y, const Chunk<X, LENGTH>& chunk) {
    *(Chunk<X, LENGTH>*)y = chunk;
}
