// Many tensors in one launch: each block works on one chunk of one of them. A model has hundreds of parameters, most of them
// small; a launch for each would cost more than its work. `crates/cuda/src/ops/tensors.rs` fills the table in.
#pragma once
#include "types.cuh"

// Together with a kernel's other arguments, at most 4096 bytes.
constexpr int TENSORS = 64, OPERANDS = 5;
// Elements of a chunk: four runs of 16 bytes for each of 256 threads, if they are f32.
constexpr i64 CHUNK = 4096;

struct Tensors {
    // Row-major operands of one shape; null where a kernel has fewer.
    void* at[TENSORS][OPERANDS];
    i64 numel[TENSORS];
    // The block that has the tensor's first chunk.
    i32 first[TENSORS];
    i32 count, blocks;
};

// The block's part of its tensor: elements `begin` to `end`.
struct Chunk { i32 tensor; i64 begin, end; };

__device__ __forceinline__ Chunk chunk_of(const Tensors& tensors) {
    i32 block = blockIdx.x, t = 0;
    for (i32 step = TENSORS / 2; step > 0; step /= 2)
        if (t + step < tensors.count && tensors.first[t + step] <= block) t += step;
    i64 begin = (block - tensors.first[t]) * CHUNK, numel = tensors.numel[t];
    return {t, begin, begin + CHUNK < numel ? begin + CHUNK : numel};
}

// Calls f(i, run of LENGTH) where whole runs of 16 bytes may be moved at once, f(i, one) for the other elements; `i` counts runs.
template <int N> struct Length { static constexpr int VALUE = N; };
template <class T, class F> __device__ __forceinline__ void each_run(const Chunk& chunk, bool aligned, F f) {
    constexpr int LENGTH = 16 / sizeof(T);
    i64 whole = aligned ? chunk.end / LENGTH : chunk.begin / LENGTH;
    for (i64 i = chunk.begin / LENGTH + threadIdx.x; i < whole; i += blockDim.x) f(i, Length<LENGTH>());
    for (i64 i = whole * LENGTH + threadIdx.x; i < chunk.end; i += blockDim.x) f(i, Length<1>());
}
