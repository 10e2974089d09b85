// Step 4: each thread makes 8 × 8 of C.
//
// In step 3 every multiplication loads two numbers from shared memory, which gives 32 numbers per clock where the arithmetic
// units would take 256. A thread that holds 8 numbers of A and 8 of B in registers makes 64 products of 16 loads. The block's
// tile grows to 128 × 128, so that global memory is asked for eight times less as well.
#include "types.cuh"

constexpr int TILE = 128, DEPTH = 8, EACH = 8, THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS) matmul(const f32* a, const f32* b, f32* c, int m, int n, int k) {
    // A's slice is transposed on the way: what a thread reads of it lies side by side.
    __shared__ f32 a_tile[DEPTH][TILE], b_tile[DEPTH][TILE];
    int i0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE;
    int row = threadIdx.x / (TILE / EACH) * EACH, column = threadIdx.x % (TILE / EACH) * EACH;
    f32 sums[EACH][EACH] = {};
    for (int p0 = 0; p0 < k; p0 += DEPTH) {
        for (int t = threadIdx.x; t < TILE * DEPTH; t += THREADS) {
            int i = i0 + t / DEPTH, p = p0 + t % DEPTH, j = j0 + t % TILE, q = p0 + t / TILE;
            a_tile[t % DEPTH][t / DEPTH] = i < m && p < k ? a[(i64)i * k + p] : 0;
            b_tile[t / TILE][t % TILE] = j < n && q < k ? b[(i64)q * n + j] : 0;
        }
        __syncthreads();
        for (int p = 0; p < DEPTH; p++)
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < EACH; j++) sums[i][j] += a_tile[p][row + i] * b_tile[p][column + j];
        __syncthreads();
    }
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) {
            int y = i0 + row + i, x = j0 + column + j;
            if (y < m && x < n) c[(i64)y * n + x] = sums[i][j];
        }
}
