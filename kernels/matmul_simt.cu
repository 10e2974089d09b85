// C = A · B and its epilogue (epilogue.cuh) in f32 and f64 without tensor cores: every product and sum is of the full type. For any strides.
//
// A block of 256 threads makes a tile of C, 16 × EACH rows by as many columns, each thread EACH × EACH of it, so that it does
// EACH²  multiplications for 2 EACH numbers from shared memory; while it works on one slice of DEPTH along K, the copies of the
// next ones are on their way there.
#include "matmul_simt.cuh"

template <class T, int EACH>
__device__ __forceinline__ void matmul(const T* a, const T* b, const Output<T>& out, const Shape& s, const Layout<2>& batch) {
    typedef Block<T, EACH> Block;
    Place at = place<Block::TILE, Block::TILE>(s, blockIdx.x);
    Part part(s, blockIdx.y);
    i64 starts[2];
    batch.find(at.matrix, starts);
    Feed<T, Block::TILE> feed_a(a + starts[0] + at.row * s.a_row + part.start * s.a_column, s.a_row, s.a_column, s.m - at.row);
    Feed<T, Block::TILE> feed_b(b + starts[1] + at.column * s.b_column + part.start * s.b_row, s.b_column, s.b_row, s.n - at.column);
    typename Block::Sums sums = {};
    Block::product(sums, feed_a, feed_b, part.depth);
    if (out.parts)
        Block::store(out.parts + blockIdx.y * s.batches * s.m * s.n, sums, nullptr, s, at);
    else if (out.epilogue.is_bias())
        Block::store(out.c, sums, out.epilogue.bias, s, at);
    else
        Block::finish(out, sums, s, at);
}

#define KERNEL(name, T, EACH)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                      \
        matmul_##name(const T* a, const T* b, Output<T> out, Shape s, Layout<2> batch) {                          \
        matmul<T, EACH>(a, b, out, s, batch);                                                                     \
    }
KERNEL(large_f32, f32, 8)
KERNEL(small_f32, f32, 4)
KERNEL(small_f64, f64, 4)
