// Step 5: 16 bytes at a time. K and N are multiples of 4.
//
// Step 4 issues one instruction for each 4 bytes that it moves, and instructions are now what it waits for. Here every load and
// store moves a float4. Two more things come with it: a thread's 8 × 8 are four blocks of 4 × 4, 64 rows and columns apart, so
// that neighbouring threads read neighbouring float4s, from different banks of shared memory; and A's slice, whose transposed
// copy writes 4 bytes at a time down a column, has lines 4 numbers longer, for the same reason.
#include "types.cuh"

constexpr int TILE = 128, DEPTH = 8, THREADS = 256, HALF = TILE / 2;

extern "C" __global__ void __launch_bounds__(THREADS) matmul(const f32* a, const f32* b, f32* c, int m, int n, int k) {
    __shared__ __align__(16) f32 a_tile[DEPTH][TILE + 4], b_tile[DEPTH][TILE];
    int i0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE;
    int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    // Each thread copies one float4 of each slice: a row of A has two of them, a row of B 32.
    int a_row = threadIdx.x / 2, a_place = threadIdx.x % 2 * 4, b_row = threadIdx.x / 32, b_place = threadIdx.x % 32 * 4;
    float4 zeros = make_float4(0, 0, 0, 0);
    f32 sums[8][8] = {};
    for (int p0 = 0; p0 < k; p0 += DEPTH) {
        bool there = i0 + a_row < m && p0 + a_place < k;
        float4 of_a = there ? *reinterpret_cast<const float4*>(a + (i64)(i0 + a_row) * k + p0 + a_place) : zeros;
        there = j0 + b_place < n && p0 + b_row < k;
        float4 of_b = there ? *reinterpret_cast<const float4*>(b + (i64)(p0 + b_row) * n + j0 + b_place) : zeros;
        a_tile[a_place][a_row] = of_a.x;
        a_tile[a_place + 1][a_row] = of_a.y;
        a_tile[a_place + 2][a_row] = of_a.z;
        a_tile[a_place + 3][a_row] = of_a.w;
        *reinterpret_cast<float4*>(&b_tile[b_row][b_place]) = of_b;
        __syncthreads();
        for (int p = 0; p < DEPTH; p++) {
            __align__(16) f32 x[8], y[8];
            for (int half = 0; half < 2; half++) {
                *reinterpret_cast<float4*>(x + 4 * half) = *reinterpret_cast<const float4*>(&a_tile[p][row + half * HALF]);
                *reinterpret_cast<float4*>(y + 4 * half) = *reinterpret_cast<const float4*>(&b_tile[p][column + half * HALF]);
            }
            for (int i = 0; i < 8; i++)
                for (int j = 0; j < 8; j++) sums[i][j] += x[i] * y[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < 8; i++)
        for (int half = 0; half < 2; half++) {
            int y = i0 + row + i / 4 * HALF + i % 4, x = j0 + column + half * HALF;
            const f32* four = sums[i] + 4 * half;
            if (y < m && x < n) *reinterpret_cast<float4*>(c + (i64)y * n + x) = make_float4(four[0], four[1], four[2], four[3]);
        }
}
