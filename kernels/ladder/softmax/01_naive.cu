// Step 1: a thread for each row.
//
// y[i] = e^{x[i] − max x} / Σ_j e^{x[j] − max x}; without the maximum, e^x overflows from x = 89 on. Three passes over the row: its
// maximum, its sum, its result. Neighbouring threads have neighbouring rows, so what a warp reads at once lies N apart, and
// memory answers in pieces of 32 bytes, of which each thread takes 4.
#include "types.cuh"

extern "C" __global__ void __launch_bounds__(256) softmax(const f32* x, f32* y, int rows, int n) {
    int row = blockIdx.x * 256 + threadIdx.x;
    if (row >= rows) return;
    x += (i64)row * n, y += (i64)row * n;
    f32 max = x[0], sum = 0;
    for (int i = 1; i < n; i++) max = fmaxf(max, x[i]);
    for (int i = 0; i < n; i++) sum += expf(x[i] - max);
    for (int i = 0; i < n; i++) y[i] = expf(x[i] - max) / sum;
}
