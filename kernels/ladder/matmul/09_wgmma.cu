// Step 9: a card of the next generation (Hopper) with machines of its own.
//
// In step 8 threads still do the carrying: they compute addresses, ask for copies, load fragments, and only then multiply. On
// Hopper a copy engine (TMA) moves whole boxes of a tensor to shared memory, swizzled, with zeros for what lies outside; one
// thread asks for them, and a barrier in shared memory counts their bytes. And `wgmma` multiplies what lies in shared memory as
// it is: no fragments are loaded, four warps together make 64 rows, and they go on while the tensor cores work.
//
// What is left is in `matmul_wgmma.cu`, which ships: larger tiles, warps that only fetch beside warps that only multiply, two
// blocks that share what they load, blocks that stay for the next tile, and results that go through the copy engine too.
#include "hopper.cuh"
#include "types.cuh"

constexpr int ROWS = 64, COLUMNS = 128, DEPTH = 64, THREADS = 128, STAGES = 4;
// 64 × 64 numbers, which is what the copy engine moves at a time: 64 lines of 128 bytes, in groups of eight.
constexpr int PANEL = 64 * 64, PANEL_BYTES = 2 * PANEL, LINE_BYTES = 128, GROUP_BYTES = 8 * LINE_BYTES;

// A's lines go along K, B's along its rows.
struct Stage { bf16 a[PANEL], b[COLUMNS / 64][PANEL]; };
struct Memory {
    Stage ring[STAGES];
    Mbarrier full[STAGES];
};

extern "C" __global__ void __launch_bounds__(THREADS) matmul(
        const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, f32* c, int m, int n, int k) {
    DYNAMIC_SHARED(Memory, memory);
    // Panels are swizzled by their addresses; elsewhere products would be silently wrong.
    if (shared_address(memory) % 1024 != 0) __trap();
    int i0 = blockIdx.x * ROWS, j0 = blockIdx.y * COLUMNS, warp = threadIdx.x / 32, lane = lane_id();
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) mbarrier_init(&memory->full[stage], 1);
        fence_mbarrier_init();
    }
    __syncthreads();
    auto fetch = [&](int slice) {
        int p0 = slice * DEPTH;
        if (threadIdx.x != 0 || p0 >= k) return;
        Stage& stage = memory->ring[slice % STAGES];
        Mbarrier* full = &memory->full[slice % STAGES];
        mbarrier_arrive_expect_tx(full, sizeof(Stage));
        tma_load_2d(stage.a, &a, full, p0, i0);
        for (int j = 0; j < COLUMNS / 64; j++) tma_load_2d(stage.b[j], &b, full, j0 + 64 * j, p0);
    };
    for (int slice = 0; slice < STAGES - 1; slice++) fetch(slice);
    f32 sums[COLUMNS / 2] = {};
    for (int slice = 0; slice * DEPTH < k; slice++) {
        // Each time round the ring, the barrier's phase has the other parity.
        mbarrier_wait(&memory->full[slice % STAGES], slice / STAGES % 2);
        Stage& stage = memory->ring[slice % STAGES];
        u64 x = matrix_descriptor(stage.a, GROUP_BYTES, PANEL_BYTES), y = matrix_descriptor(stage.b, GROUP_BYTES, PANEL_BYTES);
        wgmma_hold(sums);
        wgmma_fence();
        // 16 numbers along K are 32 bytes of each of A's lines, and 16 of B's lines.
        for (int p = 0; p < DEPTH; p += 16) wgmma_m64n128k16_bf16<0, 1>(sums, advance(x, 2 * p), advance(y, LINE_BYTES * p), true);
        wgmma_commit();
        // The slice before has been read by all warps: its place in the ring is free. This one is on its way.
        wgmma_wait<1>();
        __syncthreads();
        fetch(slice + STAGES - 1);
    }
    wgmma_wait<0>();
    wgmma_hold(sums);
    for (int j = 0; j < COLUMNS / 8; j++)
        for (int half = 0; half < 2; half++) {
            int y = i0 + 16 * warp + 8 * half + lane / 4, x = j0 + 8 * j + lane % 4 * 2;
            if (y < m && x < n)
                *reinterpret_cast<float2*>(c + (i64)y * n + x) = make_float2(sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]);
        }
}
