// C = A · B + bias for any strides and types: each block makes a tile of C of 64 × 64, each thread 4 × 4 of it, from tiles of A and B in
// shared memory. Sums are f32 for the half types. For every type that the tensor cores do not take, and the reference for those
// that they do.
#include "matmul.cuh"

constexpr int TILE = 64, DEPTH = 16, THREADS = 256, EACH = 4;

template <class T>
__device__ __forceinline__ void matmul(const T* a, const T* b, const Output<T>& out, const Shape& s, const Layout<2>& batch) {
    typedef compute_t<T> A;
    __shared__ A a_tile[DEPTH][TILE + 1], b_tile[DEPTH][TILE + 1];
    u32 row = threadIdx.x / (TILE / EACH) * EACH, column = threadIdx.x % (TILE / EACH) * EACH;
    Place at = place<TILE, TILE>(s, blockIdx.x);
    i64 starts[2];
    batch.find(at.matrix, starts);
    a += starts[0], b += starts[1];
    // Neighbouring threads read neighbours in memory, along whichever dimension those lie.
    bool a_by_rows = s.a_column == 1, b_by_rows = s.b_column == 1;
    A sums[EACH][EACH] = {};
    for (i64 p0 = 0; p0 < s.k; p0 += DEPTH) {
        for (u32 t = threadIdx.x; t < TILE * DEPTH; t += THREADS) {
            u32 i = a_by_rows ? t / DEPTH : t % TILE, p = a_by_rows ? t % DEPTH : t / TILE;
            bool there = at.row + i < s.m && p0 + p < s.k;
            a_tile[p][i] = there ? load(a[(i64)(at.row + i) * s.a_row + (p0 + p) * s.a_column]) : A(0);
            u32 j = b_by_rows ? t % TILE : t / DEPTH, q = b_by_rows ? t / TILE : t % DEPTH;
            there = at.column + j < s.n && p0 + q < s.k;
            b_tile[q][j] = there ? load(b[(p0 + q) * s.b_row + (i64)(at.column + j) * s.b_column]) : A(0);
        }
        __syncthreads();
        for (int p = 0; p < DEPTH; p++)
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < EACH; j++) sums[i][j] += a_tile[p][row + i] * b_tile[p][column + j];
        __syncthreads();
    }
    T* c = out.c + (i64)at.matrix * s.m * s.n;
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) {
            i64 y = (i64)at.row + row + i, x = (i64)at.column + column + j;
            if (y < s.m && x < s.n) {
                A sum = out.epilogue.bias ? sums[i][j] + A(load(out.epilogue.bias[x])) : sums[i][j];
                c[y * s.n + x] = store<T>(sum);
            }
        }
}

#define KERNEL(name, T)                                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                       \
        matmul_##name(const T* a, const T* b, Output<T> out, Shape s, Layout<2> batch) {                          \
        matmul<T>(a, b, out, s, batch);                                                                           \
    }
KERNEL(f32, f32)
KERNEL(f64, f64)
KERNEL(f16, f16)
KERNEL(bf16, bf16)
// Without a sign, integers wrap.
KERNEL(i64, u64)
KERNEL(i32, u32)
KERNEL(i8, u8)
KERNEL(u8, u8)
