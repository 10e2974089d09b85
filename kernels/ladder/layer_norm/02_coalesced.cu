// Step 2: a block for each row, so that neighbouring threads read neighbours.
//
// Each thread takes every 256th element; `block_reduce` adds up what the threads have, by shuffles within a warp and through shared
// memory between them (reduction.cuh; step 2 of softmax has the tree that it replaces). The row is still read three times.
#include "reduction.cuh"

constexpr int THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS) layer_norm(const f32* x, f32* y, int rows, int n, f32 eps) {
    x += (i64)blockIdx.x * n, y += (i64)blockIdx.x * n;
    f32 mean = 0, variance = 0;
    for (int i = threadIdx.x; i < n; i += THREADS) mean += x[i];
    mean = block_reduce<Sum<f32>>(mean) / n;
    for (int i = threadIdx.x; i < n; i += THREADS) variance += (x[i] - mean) * (x[i] - mean);
    f32 scale = 1 / sqrtf(block_reduce<Sum<f32>>(variance) / n + eps);
    for (int i = threadIdx.x; i < n; i += THREADS) y[i] = (x[i] - mean) * scale;
}
