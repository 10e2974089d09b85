// Step 5: copies on their way while the tensor cores work, and shared memory without conflicts.
//
// `cp.async` copies from global to shared memory without passing through registers, and nobody waits for it until he says so: the
// next keys and values are on their way to the other half of a ring while these are multiplied. And the eight 16-byte chunks of a row
// change places, differently in each row: chunk c of row r lies where chunk c XOR r mod 8 would, so that the eight rows that
// `ldmatrix` reads below each other reach all 32 banks of shared memory. Nothing else changes.
//
// What is left is in `attention.cu`, which ships: two fragments of queries for each warp, so that a chunk that was read serves
// twice; other types and head dimensions; causality, which skips half of the work; masks, dropout, heads that share keys.
#include "reduction.cuh"

constexpr int D = 64, KEYS = 64, WARPS = 4, QUERIES = 16 * WARPS, THREADS = WARPS * 32;

// Chunk `c`, of 8 numbers, of row `r`.
__device__ __forceinline__ bf16* chunk(bf16* tile, int r, int c) { return tile + r * D + (c ^ r % 8) * 8; }
// 64 rows of `from`, of which `rows` are there, and zeros behind them.
__device__ __forceinline__ void copy(bf16* tile, const bf16* from, int rows) {
    for (int t = threadIdx.x; t < 64 * D / 8; t += THREADS) {
        bool there = t / (D / 8) < rows;
        cp_async_16(chunk(tile, t / (D / 8), t % (D / 8)), there ? from + t * 8 : from, there ? 16 : 0);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention(const bf16* q, const bf16* k, const bf16* v, f32* o, int time, f32 scale) {
    __shared__ __align__(16) bf16 ring[2][2 * KEYS * D];
    i64 head = (i64)blockIdx.y * time * D;
    int i0 = blockIdx.x * QUERIES, lane = lane_id(), row = lane % 16, half = lane / 16, first = threadIdx.x / 32 * 16;
    auto fetch = [&](int j0) {
        bf16* keys = ring[j0 / KEYS % 2];
        copy(keys, k + head + (i64)j0 * D, time - j0);
        copy(keys + KEYS * D, v + head + (i64)j0 * D, time - j0);
    };
    // Queries pass through the other half of the ring to registers, where they stay.
    copy(ring[1], q + head + (i64)i0 * D, time - i0);
    fetch(0);
    cp_async_wait_all();
    __syncthreads();
    u32 query[D / 16][4];
#pragma unroll
    for (int d = 0; d < D / 16; d++) ldmatrix_x4(query[d], chunk(ring[1], first + row, 2 * d + half));
    // Powers are of two: the hardware knows no others.
    f32 factor = scale * 1.44269504f, m[2] = {smallest_of(f32(0)), smallest_of(f32(0))}, l[2] = {0, 0}, sums[D / 8][4] = {};
#pragma unroll 1
    for (int j0 = 0; j0 < time; j0 += KEYS) {
        // These are there, this thread's and everybody's, and nobody reads the ones before any more.
        cp_async_wait_all();
        __syncthreads();
        if (j0 + KEYS < time) fetch(j0 + KEYS);
        bf16 *keys = ring[j0 / KEYS % 2], *values = keys + KEYS * D;
        f32 s[KEYS / 8][4] = {};
#pragma unroll
        for (int d = 0; d < D / 16; d++)
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++) {
                u32 right[4];
                ldmatrix_x4(right, chunk(keys, 16 * j + row, 2 * d + half));
                mma_m16n8k16_bf16(s[2 * j], query[d], {right[0], right[2]});
                mma_m16n8k16_bf16(s[2 * j + 1], query[d], {right[1], right[3]});
            }
        // Of the two rows of this lane: g, whose numbers come first, and g + 8.
#pragma unroll
        for (int r = 0; r < 2; r++) {
            f32 larger = m[r];
#pragma unroll
            for (int e = 0; e < KEYS / 4; e++) {
                f32& score = s[e / 2][2 * r + e % 2];
                if (j0 + e / 2 * 8 + lane % 4 * 2 + e % 2 >= time) score = smallest_of(f32(0));
                larger = fmaxf(larger, score);
            }
            for (int bit = 1; bit < 4; bit *= 2) larger = fmaxf(larger, other_lane(larger, bit));
            f32 decay = ex2_approx((m[r] - larger) * factor);
            m[r] = larger;
            // Each lane's own share: they are added up in the end.
            l[r] *= decay;
#pragma unroll
            for (int e = 0; e < KEYS / 4; e++) l[r] += s[e / 2][2 * r + e % 2] = ex2_approx((s[e / 2][2 * r + e % 2] - larger) * factor);
#pragma unroll
            for (int e = 0; e < D / 4; e++) sums[e / 2][2 * r + e % 2] *= decay;
        }
#pragma unroll
        for (int j = 0; j < KEYS / 16; j++) {
            u32 left[4];
#pragma unroll
            for (int e = 0; e < 4; e++) left[e] = pack_bf16x2_rn(s[2 * j + e / 2][e % 2 * 2], s[2 * j + e / 2][e % 2 * 2 + 1]);
#pragma unroll
            for (int d = 0; d < D / 16; d++) {
                u32 right[4];
                ldmatrix_x4_trans(right, chunk(values, 16 * j + row, 2 * d + half));
                mma_m16n8k16_bf16(sums[2 * d], left, {right[0], right[1]});
                mma_m16n8k16_bf16(sums[2 * d + 1], left, {right[2], right[3]});
            }
        }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        for (int bit = 1; bit < 4; bit *= 2) l[r] += other_lane(l[r], bit);
        int i = i0 + first + 8 * r + lane / 4;
#pragma unroll
        for (int d = 0; d < D / 8; d++)
            if (i < time)
                *reinterpret_cast<float2*>(o + head + (i64)i * D + 8 * d + lane % 4 * 2) =
                    make_float2(sums[d][2 * r] / l[r], sums[d][2 * r + 1] / l[r]);
    }
}
