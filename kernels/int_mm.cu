// C = A · B of 8-bit integers on tensor cores: [M, K] i8 × [K, N] i8 → [M, N] i32, the sums modulo 2³². -DALIGNED=1 if rows of A and columns
// of B begin and end at multiples of 16 bytes.
//
// The tiles, and how the copies overlap with the products, are those of matmul_mma.cuh: to `ldmatrix` two integers are one number of 16
// bits. So it cannot transpose them, and both operands lie along K; one that does not is copied first. Sums of a part of K, if it is
// cut, go to memory like those of all of it, part behind part (see split_k.cu).
#include "matmul_mma.cuh"

template <int ROWS, int COLUMNS, int WARP_ROWS, int WARP_COLUMNS>
__device__ __forceinline__ void int_mm(const T* a, const T* b, i32* sums, const Shape& s) {
    typedef Block<ROWS, COLUMNS, WARP_ROWS, WARP_COLUMNS, true, true> Block;
    DYNAMIC_SHARED(T, ring);
    Place at = place<ROWS, COLUMNS>(s, blockIdx.x);
    Part part(s, blockIdx.y);
    Feed<ROWS, true, ALIGNED, Block::THREADS> feed_a(a + at.row * s.a_row + part.start, s.a_row, s.m - at.row);
    Feed<COLUMNS, true, ALIGNED, Block::THREADS> feed_b(b + at.column * s.b_column + part.start, s.b_column, s.n - at.column);
    typename Block::Sums d = {};
    Block::product(d, ring, feed_a, feed_b, part.depth);
    Block::store_sums(sums + blockIdx.y * s.m * s.n, d, s, at);
}

extern "C" __global__ void __launch_bounds__(256, ALIGNED ? 2 : 1) int_mm_large(const T* a, const T* b, i32* sums, Shape s) {
    int_mm<128, 128, 64, 32>(a, b, sums, s);
}
extern "C" __global__ void __launch_bounds__(128, ALIGNED ? 4 : 2) int_mm_small(const T* a, const T* b, i32* sums, Shape s) {
    int_mm<64, 64, 32, 32>(a, b, sums, s);
}
