// What the kernels of matrix products share: the sizes, and which tile of C a block makes.
#pragma once
#include "layout.cuh"

struct Shape {
    i64 m, n, k;
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
