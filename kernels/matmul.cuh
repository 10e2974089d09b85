// What the kernels of matrix products share: the sizes, which tile of C a block makes, and where its sums go.
#pragma once
#include "epilogue.cuh"
#include "layout.cuh"

struct Shape {
    i64 m, n, k;
    // Of K, how much a block adds up: all of it, or a part (see split_k.cu).
    i64 part;
    // Of A and B: to the next row and column.
    i64 a_row, a_column, b_row, b_column;
    i64 batches;
};

// A block's place: the matrix of the batch, and the first row and column of the tile.
struct Place { u32 matrix, row, column; };

// Blocks of neighbouring numbers run at the same time. Numbered row by row, those of a large product would read one strip of A
// and all of B; numbered down bands of BAND tiles, they make a patch of C that is about square, whose strips of A and B
// stay in L2 while all of them read them.
template <int ROWS, int COLUMNS>
__device__ __forceinline__ Place place(const Shape& s, u32 number) {
    constexpr u32 BAND = 8;
    u32 rows = (u32)((s.m + ROWS - 1) / ROWS), columns = (u32)((s.n + COLUMNS - 1) / COLUMNS);
    u32 matrix = number / (rows * columns), tile = number % (rows * columns);
    u32 first = tile / (BAND * columns) * BAND, within = tile % (BAND * columns);
    u32 height = rows - first < BAND ? rows - first : BAND;
    return {matrix, (first + within % height) * ROWS, within / height * COLUMNS};
}

// What there is along K of the part of this number.
struct Part {
    i64 start;
    int depth;

    __device__ __forceinline__ Part(const Shape& s, u32 number) : start(number * s.part) {
        i64 left = s.k - start;
        depth = (int)(left < s.part ? left : s.part);
    }
};

// Where sums go: through the epilogue to C [B, M, N]; or, if K is cut into S parts, as they are to `parts` [S, B, M, N].
template <class T> struct Output {
    T* c;
    compute_t<T>* parts;
    Epilogue<T> epilogue;
};

// The epilogue of a tile of ROWS × COLUMNS sums in shared memory, by so many threads of which this is one; `find` says where
// sum (i, j) lies, with j + 1 behind it if j is even. So it is there once, in a loop, and not unrolled for each register of sums.
template <int ROWS, int COLUMNS, int THREADS, int N, class T, class FIND>
__device__ __forceinline__ void finish_groups(const Output<T>& out, const Shape& s, const Place& at, int thread, FIND find) {
#pragma unroll 1
    for (int t = thread; t < ROWS * COLUMNS / N; t += THREADS) {
        int i = t / (COLUMNS / N), j = t % (COLUMNS / N) * N;
        i64 row = (i64)at.row + i, column = (i64)at.column + j;
        if (row >= s.m) break;
        if (column >= s.n) continue;
        f32 sums[N];
        for (int n = 0; n < N; n++) sums[n] = find(i, j)[n];
        out.epilogue.finish(out.c, sums, (at.matrix * s.m + row) * s.n + column, column);
    }
}
// Two neighbours at a time, unless rows begin at odd places.
template <int ROWS, int COLUMNS, int THREADS, class T, class FIND>
__device__ __forceinline__ void finish_tile(const Output<T>& out, const Shape& s, const Place& at, int thread, FIND find) {
    if (s.n % 2 == 0)
        finish_groups<ROWS, COLUMNS, THREADS, 2>(out, s, at, thread, find);
    else
        finish_groups<ROWS, COLUMNS, THREADS, 1>(out, s, at, thread, find);
}

// Two neighbours in a row of parts, as far as there are columns `left` for them: at once, unless rows begin at odd places.
template <class S> __device__ __forceinline__ void store_sums(S* to, i64 columns, int left, S low, S high) {
    if (columns % 2 == 0) {
        if (left > 0) *reinterpret_cast<Neighbours<S, 2>*>(to) = {{low, high}};
    } else {
        if (left > 0) to[0] = low;
        if (left > 1) to[1] = high;
    }
}
