// Step 2: neighbouring threads read neighbours.
//
// Step 1 asked memory for eight times what it used. Exchange the roles of i and j, and a warp reads a run of B's row, writes a
// run of C's, and all its threads want the same number of A: each piece of 32 bytes is used whole. Nothing else changes.
#include "types.cuh"

extern "C" __global__ void __launch_bounds__(256) matmul(const f32* a, const f32* b, f32* c, int m, int n, int k) {
    int i = blockIdx.x * 8 + threadIdx.x / 32, j = blockIdx.y * 32 + threadIdx.x % 32;
    if (i >= m || j >= n) return;
    f32 sum = 0;
    for (int p = 0; p < k; p++) sum += a[(i64)i * k + p] * b[(i64)p * n + j];
    c[(i64)i * n + j] = sum;
}
