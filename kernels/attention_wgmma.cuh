// What attention's kernels for Hopper share: products of a warpgroup whose operands are rows, in slices of 64 numbers, and the way of
// its sums to memory.
#pragma once
#include "hopper.cuh"
#include "attention_scores.cuh"
#include "panels.cuh"
#include "tensor_core.cuh"

// The warpgroups that multiply; one more, the producer, has the copy engine bring what they need.
constexpr int CONSUMERS = WARPS / 4;
// Across a row.
constexpr int SLICES = HEAD / 64;
// Along the sum of one instruction.
constexpr int STEP = 16;
static_assert(FRAGMENTS == 1, "a warp has 16 of its warpgroup's 64 rows");

// So many rows, slice by slice: 64 numbers of each.
template <int LINES> using Slices = TYPE[SLICES][LINES * 64];
// A warp's weights of a tile, rounded, as a left operand.
typedef u32 Weights[COLUMNS / STEP][4];

// Rows from `row` on, in boxes of 64 × 64.
template <int LINES>
__device__ __forceinline__ void load(Slices<LINES>& to, const TensorMap* rows, Mbarrier* barrier, int row, int head, int batch) {
    for (int p = 0; p < SLICES; p++)
        for (int line = 0; line < LINES; line += 64) tma_load_4d(to[p] + line * 64, rows, barrier, 64 * p, row + line, head, batch);
}

// The same registers as instructions of a warpgroup count them: of 16 rows of a warp, and of several such beside each other.
template <int N> __device__ __forceinline__ f32 (&flat(f32 (&s)[1][N][4]))[4 * N] { return reinterpret_cast<f32(&)[4 * N]>(s); }
template <int M, int N> __device__ __forceinline__ f32 (&flat(f32 (&s)[M][1][N][4]))[4 * M * N] {
    return reinterpret_cast<f32(&)[4 * M * N]>(s);
}

// d += or = the product of 64 × 16 numbers and 16 × N: of rows with rows, of weights with rows across, and both across.
#define MULTIPLY(n, count, T)                                                                               \
    __device__ __forceinline__ void multiply_rows(f32 (&d)[count], u64 a, u64 b, bool accumulate, T) {      \
        wgmma_m64n##n##k16_##T<0, 0>(d, a, b, accumulate);                                                  \
    }                                                                                                       \
    __device__ __forceinline__ void multiply_weights(f32 (&d)[count], const u32 (&a)[4], u64 b, T) {        \
        wgmma_m64n##n##k16_##T<1>(d, a, b, true);                                                           \
    }                                                                                                       \
    __device__ __forceinline__ void multiply_across(f32 (&d)[count], u64 a, u64 b, bool accumulate, T) {    \
        wgmma_m64n##n##k16_##T<1, 1>(d, a, b, accumulate);                                                  \
    }
MULTIPLY(64, 32, f16)
MULTIPLY(64, 32, bf16)
MULTIPLY(128, 64, f16)
MULTIPLY(128, 64, bf16)
MULTIPLY(256, 128, f16)
MULTIPLY(256, 128, bf16)
#undef MULTIPLY

// Asks for s = A Bᵀ, of 64 of A's rows from `first` on and all of B's.
template <int N, int A_LINES, int B_LINES>
__device__ __forceinline__ void ask_for_scores(f32 (&s)[N], const Slices<A_LINES>& rows, int first, const Slices<B_LINES>& columns) {
    constexpr int A_BYTES = A_LINES * LINE_BYTES, B_BYTES = B_LINES * LINE_BYTES;
    u64 a = matrix_descriptor(rows[0] + first * 64, GROUP_BYTES, A_BYTES), b = matrix_descriptor(columns, GROUP_BYTES, B_BYTES);
#pragma unroll
    for (int d = 0; d < HEAD; d += STEP) {
        int slice = d / 64, along = 2 * (d % 64);
        multiply_rows(s, advance(a, slice * A_BYTES + along), advance(b, slice * B_BYTES + along), d > 0, TYPE{});
    }
    wgmma_commit();
}

// Asks for o += P B, of B's rows from `first` on.
template <int LINES>
__device__ __forceinline__ void ask_for_sums(Sums& o, const Weights& p, const Slices<LINES>& rows, int first) {
    u64 b = matrix_descriptor(rows[0] + first * 64, GROUP_BYTES, LINES * LINE_BYTES);
#pragma unroll
    for (int j = 0; j < COLUMNS / STEP; j++) multiply_weights(flat(o), p[j], advance(b, j * STEP * LINE_BYTES), TYPE{});
    wgmma_commit();
}

__device__ __forceinline__ void round(Weights& p, const Scores& s) {
#pragma unroll
    for (int j = 0; j < COLUMNS / STEP; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const f32* pair = &s[0][2 * j + i / 2][i % 2 * 2];
            p[j][i] = pack(pair[0], pair[1], TYPE{});
        }
}

// What a mask makes of a score.
__device__ __forceinline__ f32 masked(f32 score, f32 added) { return score + added; }
__device__ __forceinline__ f32 masked(f32 score, boolean seen) { return seen.bits ? score : smallest_of(score); }

// As `mask` in attention_scores.cuh, but with a loop for each kind of mask: many of its numbers are on their way at a time, and their
// places, a row's and a column's, take few registers.
template <bool TRANSPOSED, class T>
__device__ __forceinline__ void mask_with(Scores& s, const Attention& a, const Place& at, int i, int j) {
    const T* matrix = static_cast<const T*>(a.mask) + at.batch * a.mask_batch + at.head * a.mask_head;
    int row = TRANSPOSED ? j : i, last_row = (TRANSPOSED ? a.tk : a.tq) - 1;
    int column = TRANSPOSED ? i : j, last_column = (TRANSPOSED ? a.tq : a.tk) - 1;
    i32 down = TRANSPOSED ? a.mask_key : a.mask_query, across = TRANSPOSED ? a.mask_query : a.mask_key;
    // Else it is widened before the loop over tiles, and 64 bits are multiplied where one instruction does for 32.
    forget(across);
    const T* rows[2];
#pragma unroll
    for (int r = 0; r < 2; r++) rows[r] = matrix + (i64)min(row + row_of(0, 2 * r), last_row) * down;
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            i64 along = (i64)min(column + column_of(n, e), last_column) * across;
            s[0][n][e] = masked(s[0][n][e] * f32(a.scale), rows[e / 2][along]);
        }
}
template <bool TRANSPOSED>
__device__ __forceinline__ void mask_rows(Scores& s, const Attention& a, const Place& at, int i, int j) {
    if (a.kind == Attention::ADDITIVE) return mask_with<TRANSPOSED, f32>(s, a, at, i, j);
    if (a.kind == Attention::BOOLEAN) return mask_with<TRANSPOSED, boolean>(s, a, at, i, j);
#pragma unroll
    for (int n = 0; n < COLUMNS / 2; n++) flat(s)[n] *= f32(a.scale);
}

// Rounds a warpgroup's 64 rows of sums into panels that lie so many numbers apart, where the copy engine will see them.
template <int N> __device__ __forceinline__ void store_rounded(TYPE* panels, int apart, const f32 (&sums)[N]) {
    int lane = lane_id(), line = threadIdx.x % WARPGROUP / WARP * 16 + lane % 16;
#pragma unroll
    for (int j = 0; j < N / 4; j += 2) {
        const f32* d = sums + 4 * j;
        u32 r[4] = {pack(d[0], d[1], TYPE{}), pack(d[2], d[3], TYPE{}), pack(d[4], d[5], TYPE{}), pack(d[6], d[7], TYPE{})};
        // Rows 0…7 and 8…15 of one chunk, then of the next.
        stmatrix_x4(chunk_at(panels + j / 8 * apart, line, j % 8 + lane / 16), r);
    }
    fence_proxy_async();
}
