// C = A · B and its epilogue (epilogue.cuh) on tensor cores, with f32 sums: of bf16, of f16, and of f32 whose last 13 bits are rounded off (TF32), -DTYPE.
// One program for each way in which the operands lie in memory: -DA_ALONG_K=1 if A's rows are runs of memory, 0 if its columns
// are; -DB_ALONG_K=1 if B's columns are, 0 if its rows are; -DALIGNED=1 if every run begins and ends at a multiple of 16 bytes.
//
// A block makes a tile of C, and walks along K in slices of DEPTH. While its warps multiply one slice, the copies of the
// next STAGES − 1 are on their way from global to shared memory; while the tensor cores take one pair of fragments, the
// next pair is on its way from shared memory to registers. So nobody waits for memory but at the very start.
#include "matmul_mma.cuh"

template <int ROWS, int COLUMNS, int WARP_ROWS, int WARP_COLUMNS>
__device__ __forceinline__ void matmul(const T* a, const T* b, const Output<T>& out, const Shape& s, const Layout<2>& batch) {
    typedef Block<ROWS, COLUMNS, WARP_ROWS, WARP_COLUMNS, A_ALONG_K, B_ALONG_K> Block;
    DYNAMIC_SHARED(T, ring);
    Place at = place<ROWS, COLUMNS>(s, blockIdx.x);
    Part part(s, blockIdx.y);
    i64 starts[2];
    batch.find(at.matrix, starts);
    a += starts[0] + (i64)at.row * s.a_row + part.start * s.a_column;
    b += starts[1] + (i64)at.column * s.b_column + part.start * s.b_row;
    Feed<ROWS, A_ALONG_K, ALIGNED, Block::THREADS> feed_a(a, A_ALONG_K ? s.a_row : s.a_column, s.m - at.row);
    Feed<COLUMNS, B_ALONG_K, ALIGNED, Block::THREADS> feed_b(b, B_ALONG_K ? s.b_column : s.b_row, s.n - at.column);
    typename Block::Sums d = {};
    Block::product(d, ring, feed_a, feed_b, part.depth);
    if (out.parts) return Block::store_sums(out.parts + blockIdx.y * s.batches * s.m * s.n, d, s, at);
    // What is loaded from behind the last slice is not used; but it is read, and not while the ring becomes the tile.
    __syncthreads();
    if (!out.epilogue.is_bias()) return Block::finish(out, reinterpret_cast<f32*>(ring), d, s, at);
    Block::round(ring, d, out.epilogue.bias, s, at);
    __syncthreads();
    Block::store(out.c, ring, s, at);
}

extern "C" __global__ void __launch_bounds__(256, ALIGNED ? 2 : 1)
    matmul_large(const T* a, const T* b, Output<T> out, Shape s, Layout<2> batch) {
    matmul<128, 128, 64, 32>(a, b, out, s, batch);
}
extern "C" __global__ void __launch_bounds__(128, 4)
    matmul_small(const T* a, const T* b, Output<T> out, Shape s, Layout<2> batch) {
    matmul<64, 64, 32, 32>(a, b, out, s, batch);
}
