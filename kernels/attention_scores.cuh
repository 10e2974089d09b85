// What attention's kernels of many queries share: which rows a block has, which keys they see, masks and dropout.
#pragma once
#include "attention_tiles.cuh"

// The block's place: blocks of neighbouring numbers have rows of the same head, so that what they walk over is in L2.
struct Place {
    int batch, head, row;
    // The keys of this batch.
    int keys;
};

// Long work had better begin early: under causality that of late queries, of early keys.
template <bool LATE_FIRST> __device__ __forceinline__ Place place(const Attention& a, int heads, int time, u32 block) {
    int tiles = (time + ROWS - 1) / ROWS, head = block / tiles, tile = block % tiles;
    return {head / heads, head % heads, (LATE_FIRST ? tiles - 1 - tile : tile) * ROWS, a.keys(head / heads)};
}

// The keys that the block's queries see: from the first, or one in its tile, to before the end.
__device__ __forceinline__ int first_seen(const Attention& a, const Place& at) {
    int first = at.row + a.offset + 1 - a.window;
    return first > 0 ? first / COLUMNS * COLUMNS : 0;
}
__device__ __forceinline__ int end_seen(const Attention& a, const Place& at) {
    int last = min(at.row + ROWS, a.tq) - 1;
    return min(last + a.offset + 1, at.keys);
}

// ---- scores -------------------------------------------------------------------------------------------------------
//
// Each of these is for a warp's scores whose rows begin with query i and columns with key j; TRANSPOSED, with key j and query
// i. Most tiles need none of them.

// Where number e of [f][n] is: its query, and its key.
template <bool TRANSPOSED> __device__ __forceinline__ int query_of(int f, int n, int e) { return TRANSPOSED ? column_of(n, e) : row_of(f, e); }
template <bool TRANSPOSED> __device__ __forceinline__ int key_of(int f, int n, int e) { return TRANSPOSED ? row_of(f, e) : column_of(n, e); }

// Products become scale · product + mask. Behind the last query and key the last one's mask is read: `hide` comes later.
template <bool TRANSPOSED>
__device__ __forceinline__ void mask(Scores& s, const Attention& a, const Place& at, int i, int j) {
    i64 matrix = at.batch * a.mask_batch + at.head * a.mask_head;
    const Real* added = static_cast<const Real*>(a.mask) + matrix;
    const boolean* seen = static_cast<const boolean*>(a.mask) + matrix;
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++) {
            // Else the places of many numbers are computed ahead, and 16-bit programs have no registers for them.
            if (!TRANSPOSED && sizeof(TYPE) == 2) forget(i), forget(j);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                i64 query = min(i + query_of<TRANSPOSED>(f, n, e), a.tq - 1), key = min(j + key_of<TRANSPOSED>(f, n, e), a.tk - 1);
                i64 place = query * a.mask_query + key * a.mask_key;
                s[f][n][e] *= Real(a.scale);
                if (a.kind == Attention::ADDITIVE) s[f][n][e] += added[place];
                if (a.kind == Attention::BOOLEAN && !seen[place].bits) s[f][n][e] = smallest_of(Real(0));
            }
        }
}
__device__ __forceinline__ bool needs_mask(const Attention& a) { return a.kind != Attention::NONE || a.scale != 1; }

// What lies behind the last query or key, or outside of what a query sees, becomes −∞.
template <bool TRANSPOSED> __device__ __forceinline__ void hide(Scores& s, const Attention& a, const Place& at, int i, int j) {
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int query = i + query_of<TRANSPOSED>(f, n, e), key = j + key_of<TRANSPOSED>(f, n, e);
                bool seen = query < a.tq && key < at.keys && key <= query + a.offset && key > query + a.offset - a.window;
                if (!seen) s[f][n][e] = smallest_of(Real(0));
            }
}
__device__ __forceinline__ bool needs_hiding(const Attention& a, const Place& at, int i, int queries, int j, int keys) {
    return i + queries > a.tq || j + keys > at.keys || j + keys - 1 > i + a.offset || j <= i + queries - 1 + a.offset - a.window;
}

// The gradients of scores, to where that of the mask is wanted.
template <bool TRANSPOSED>
__device__ __forceinline__ void store_mask(Real* to, const Scores& ds, const Attention& a, const Place& at, int i, int j) {
    to += ((i64)at.batch * a.heads + at.head) * a.tq * a.tk;
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++) {
            // Else places are computed ahead, for which there are no registers.
            if (TRANSPOSED) forget(i), forget(j);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int query = i + query_of<TRANSPOSED>(f, n, e), key = j + key_of<TRANSPOSED>(f, n, e);
                if (query < a.tq && key < a.tk) to[(i64)query * a.tk + key] = ds[f][n][e];
            }
        }
}

// ---- dropout ------------------------------------------------------------------------------------------------------

// Which weights are kept, a bit for each: number e of [f][n] is bit (f · COLUMNS / 8 + n) · 4 + e. Weight w of `[B, H, Tq, Tk]` is,
// if word w of the random stream is small enough.
template <bool TRANSPOSED> __device__ __forceinline__ u64 kept(const Attention& a, const Place& at, int i, int j) {
    constexpr int NUMBERS = FRAGMENTS * COLUMNS / 2;
    static_assert(NUMBERS <= 64, "a bit for each");
    RandomStream random = a.random.now();
    u64 bits = 0, matrix = (u64)at.batch * a.heads + at.head;
#pragma unroll 1
    for (int b = 0; b < NUMBERS; b++) {
        int f = b / 4 / (COLUMNS / 8), n = b / 4 % (COLUMNS / 8);
        int query = i + query_of<TRANSPOSED>(f, n, b % 4), key = j + key_of<TRANSPOSED>(f, n, b % 4);
        u64 weight = (matrix * a.tq + query) * a.tk + key;
        Words words = philox(random, weight / 4);
        u32 low = weight & 1 ? words.at[1] : words.at[0], high = weight & 1 ? words.at[3] : words.at[2];
        bits |= (u64)((weight & 2 ? high : low) < a.threshold) << b;
    }
    return bits;
}
__device__ __forceinline__ bool is_kept(u64 bits, int f, int n, int e) { return bits >> ((f * (COLUMNS / 8) + n) * 4 + e) & 1; }

__device__ __forceinline__ void drop(Scores& weights, u64 kept) {
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) weights[f][n][e] = is_kept(kept, f, n, e) ? weights[f][n][e] : Real(0);
}
