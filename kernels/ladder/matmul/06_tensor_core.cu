// Step 6: tensor cores. A and B are bf16 from here on, C and all sums f32; K and N are multiples of 8.
//
// Step 5 is bound by the arithmetic units themselves. Tensor cores multiply 16-bit matrices, 16 × 16 by 16 × 8 with one
// instruction of a whole warp, some 15 times as fast. The operands lie spread over the warp's registers in the way that the
// instruction wants them (`ptx.cuh` says how), and `ldmatrix` fetches them so from shared memory: A's as it lies there, B's,
// whose neighbours along K are a row apart, transposed.
#include "types.cuh"

constexpr int TILE = 64, DEPTH = 32, THREADS = 128;

// A block makes 64 × 64 of C, each of its four warps 32 × 32: two fragments of A by two of B, which are four of the
// instruction's 8 columns.
extern "C" __global__ void __launch_bounds__(THREADS) matmul(const bf16* a, const bf16* b, f32* c, int m, int n, int k) {
    __shared__ __align__(16) bf16 a_tile[TILE][DEPTH], b_tile[DEPTH][TILE];
    int i0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE, lane = lane_id();
    int row = threadIdx.x / 64 * 32, column = threadIdx.x / 32 % 2 * 32;
    f32 sums[2][4][4] = {};
    for (int p0 = 0; p0 < k; p0 += DEPTH) {
        // 16 bytes at a time: four of them are a row of A's slice, eight a row of B's.
        for (int t = threadIdx.x; t < TILE * DEPTH / 8; t += THREADS) {
            int i = t / 4, p = t % 4 * 8, q = t / 8, j = t % 8 * 8;
            uint4 zeros = {0, 0, 0, 0};
            bool there = i0 + i < m && p0 + p < k;
            *reinterpret_cast<uint4*>(&a_tile[i][p]) = there ? *reinterpret_cast<const uint4*>(a + (i64)(i0 + i) * k + p0 + p) : zeros;
            there = j0 + j < n && p0 + q < k;
            *reinterpret_cast<uint4*>(&b_tile[q][j]) = there ? *reinterpret_cast<const uint4*>(b + (i64)(p0 + q) * n + j0 + j) : zeros;
        }
        __syncthreads();
        for (int p = 0; p < DEPTH; p += 16) {
            u32 x[2][4], y[2][4];
            for (int i = 0; i < 2; i++) ldmatrix_x4(x[i], &a_tile[row + 16 * i + lane % 16][p + lane / 16 * 8]);
            for (int j = 0; j < 2; j++) ldmatrix_x4_trans(y[j], &b_tile[p + lane % 16][column + 16 * j + lane / 16 * 8]);
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 4; j++) mma_m16n8k16_bf16(sums[i][j], x[i], {y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]});
        }
        __syncthreads();
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int half = 0; half < 2; half++) {
                int y = i0 + row + 16 * i + 8 * half + lane / 4, x = j0 + column + 8 * j + lane % 4 * 2;
                if (y < m && x < n)
                    *reinterpret_cast<float2*>(c + (i64)y * n + x) = make_float2(sums[i][j][2 * half], sums[i][j][2 * half + 1]);
            }
}
