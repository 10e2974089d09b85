// Matrices in shared memory, as kernels for Hopper keep them: in panels of 64 × 64 numbers of 16 bits or 64 × 32 of 32, which is what the
// copy engine moves at a time, and in rings of such tiles, which it fills while the tensor cores empty them.
#pragma once
#include "hopper.cuh"
#include "types.cuh"

// A panel has 64 lines of 128 bytes, swizzled (see `matrix_descriptor`), and groups of eight. Lines are what is contiguous in
// global memory. PANEL counts numbers of 16 bits.
constexpr int PANEL = 64 * 64, PANEL_BYTES = 2 * PANEL, LINE_BYTES = 128, GROUP_BYTES = 8 * LINE_BYTES;
// The threads that multiply together.
constexpr int WARPGROUP = 128;

// This warp's warpgroup in the block. It is told by one lane, so that the compiler knows that all have the same: descriptors that depend
// on it are then computed once for a warp.
__device__ __forceinline__ int warpgroup() { return __shfl_sync(~0u, (int)threadIdx.x / WARPGROUP, 0); }

// Chunk `chunk` of a panel's line: eight numbers of 16 bits.
template <class T> __device__ __forceinline__ T* chunk_at(T* panel, int line, int chunk) {
    static_assert(sizeof(T) == 2, "eight numbers in 16 bytes");
    return panel + line * 64 + (chunk ^ line % 8) * 8;
}

// A place in the ring. Barriers are used once in each round, so their phase's parity is that of the round.
template <int PLACES> struct Turn {
    int stage = 0;
    u32 parity = 0;
    __device__ __forceinline__ void next() {
        if (++stage == PLACES) stage = 0, parity ^= 1;
    }
};
