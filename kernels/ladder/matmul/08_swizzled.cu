// Step 8: shared memory without conflicts.
//
// Shared memory has 32 banks of 4 bytes. `ldmatrix` reads eight rows of 16 bytes at once, which takes one turn if all lie in
// different banks. In step 7 rows of A's slice are 64 bytes and rows of B's 128 bytes apart: they share banks and take four
// and eight turns. Here the 16-byte chunks of each row change places, differently in each row: chunk p of row i lies where
// chunk p XOR f(i) would, so that eight rows below each other reach all banks. Nothing is larger and nothing else changes.
//
// What is left is in `matmul_mma.cu`, which ships: larger tiles, fragments that are loaded while others are multiplied,
// operands that lie any way, and an order of tiles that keeps their strips in L2.
#include "types.cuh"

constexpr int TILE = 64, DEPTH = 32, THREADS = 128, STAGES = 3;

struct Stage {
    bf16 a[TILE * DEPTH], b[DEPTH * TILE];
    // Chunk `p` of row `i` of A's slice, which has four, and chunk `j` of row `q` of B's, which has eight.
    __device__ bf16* a_chunk(int i, int p) { return a + i * DEPTH + (p ^ i / 2 % 4) * 8; }
    __device__ bf16* b_chunk(int q, int j) { return b + q * TILE + (j ^ q % 8) * 8; }
};

extern "C" __global__ void __launch_bounds__(THREADS) matmul(const bf16* a, const bf16* b, f32* c, int m, int n, int k) {
    __shared__ __align__(16) Stage ring[STAGES];
    int i0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE, lane = lane_id();
    int row = threadIdx.x / 64 * 32, column = threadIdx.x / 32 % 2 * 32;
    auto fetch = [&](int slice) {
        Stage& stage = ring[slice % STAGES];
        int p0 = slice * DEPTH;
        // Behind the end of K nothing is copied; the group is counted all the same.
        for (int t = threadIdx.x; p0 < k && t < TILE * DEPTH / 8; t += THREADS) {
            int i = t / 4, p = t % 4, q = t / 8, j = t % 8;
            bool there = i0 + i < m && p0 + 8 * p < k;
            cp_async_16(stage.a_chunk(i, p), there ? a + (i64)(i0 + i) * k + p0 + 8 * p : a, there ? 16 : 0);
            there = j0 + 8 * j < n && p0 + q < k;
            cp_async_16(stage.b_chunk(q, j), there ? b + (i64)(p0 + q) * n + j0 + 8 * j : b, there ? 16 : 0);
        }
        cp_async_commit();
    };
    for (int slice = 0; slice < STAGES - 1; slice++) fetch(slice);
    f32 sums[2][4][4] = {};
    for (int slice = 0; slice * DEPTH < k; slice++) {
        // This slice is there: first this thread's copies, then everybody's. All have done with the slice before, too, so that
        // its place in the ring is free.
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        fetch(slice + STAGES - 1);
        Stage& stage = ring[slice % STAGES];
        for (int p = 0; p < DEPTH; p += 16) {
            u32 x[2][4], y[2][4];
            for (int i = 0; i < 2; i++) ldmatrix_x4(x[i], stage.a_chunk(row + 16 * i + lane % 16, p / 8 + lane / 16));
            for (int j = 0; j < 2; j++) ldmatrix_x4_trans(y[j], stage.b_chunk(p + lane % 16, column / 8 + 2 * j + lane / 16));
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 4; j++) mma_m16n8k16_bf16(sums[i][j], x[i], {y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]});
        }
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int half = 0; half < 2; half++) {
                int y = i0 + row + 16 * i + 8 * half + lane / 4, x = j0 + column + 8 * j + lane % 4 * 2;
                if (y < m && x < n)
                    *reinterpret_cast<float2*>(c + (i64)y * n + x) = make_float2(sums[i][j][2 * half], sums[i][j][2 * half + 1]);
            }
}
