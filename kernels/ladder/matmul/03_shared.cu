// Step 3: what a block needs is read once.
//
// Step 2 reads A N times and B M times; the caches help, but every multiplication still waits for two loads from them. Here
// the block's 256 threads, which make 16 × 16 of C, copy a slice of A and of B to shared memory together and then use each
// number 16 times from there: global memory gives a sixteenth of what it gave.
#include "types.cuh"

constexpr int TILE = 16;

extern "C" __global__ void __launch_bounds__(TILE* TILE) matmul(const f32* a, const f32* b, f32* c, int m, int n, int k) {
    __shared__ f32 a_tile[TILE][TILE], b_tile[TILE][TILE];
    int y = threadIdx.x / TILE, x = threadIdx.x % TILE;
    int i = blockIdx.x * TILE + y, j = blockIdx.y * TILE + x;
    f32 sum = 0;
    for (int p0 = 0; p0 < k; p0 += TILE) {
        // Beyond the edges are zeros, which add nothing.
        a_tile[y][x] = i < m && p0 + x < k ? a[(i64)i * k + p0 + x] : 0;
        b_tile[y][x] = j < n && p0 + y < k ? b[(i64)(p0 + y) * n + j] : 0;
        __syncthreads();
        for (int p = 0; p < TILE; p++) sum += a_tile[y][p] * b_tile[p][x];
        // Nobody overwrites what others still read.
        __syncthreads();
    }
    if (i < m && j < n) c[(i64)i * n + j] = sum;
}
