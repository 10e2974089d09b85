// Step 1: a thread for each row.
//
// y[i] = (x[i] − μ) / √(σ² + ε), μ the mean and σ² the variance of the row. Three passes over the row: its mean, its variance, its
// result. Neighbouring threads have neighbouring rows, so what a warp reads at once lies N apart, and memory answers in pieces
// of 32 bytes, of which each thread takes 4.
#include "types.cuh"

extern "C" __global__ void __launch_bounds__(256) layer_norm(const f32* x, f32* y, int rows, int n, f32 eps) {
    int row = blockIdx.x * 256 + threadIdx.x;
    if (row >= rows) return;
    x += (i64)row * n, y += (i64)row * n;
    f32 mean = 0, variance = 0;
    for (int i = 0; i < n; i++) mean += x[i];
    mean /= n;
    for (int i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean);
    f32 scale = 1 / sqrtf(variance / n + eps);
    for (int i = 0; i < n; i++) y[i] = (x[i] - mean) * scale;
}
