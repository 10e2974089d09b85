// y = A · x and its epilogue (epilogue.cuh), a matrix times a vector: C = A · B with one column, and with one row, where the matrix is
// B transposed; as when a model generates one token at a time. Numbers are of -DTYPE. Each number of A is needed once, so that all there is to do is to read it as fast as memory gives it: neighbouring threads
// read neighbours, 16 bytes each if they can. Sums are added up in an order that depends on the shape alone.
#include "matmul.cuh"
#include "reduction.cuh"

typedef TYPE T;
typedef compute_t<T> A;

constexpr int THREADS = 256, WARPS = THREADS / WARP;

struct Sizes {
    i64 rows, k;
    // Of A to the next row and along K, and of x.
    i64 row_stride, k_stride, x_stride;
    // Columns of C to the next row of A: 0 if it has a single one.
    i64 column_stride;
    i64 batches;
};

// One row's product, as far as this thread of `step` adds it up.
__device__ __forceinline__ A dot(const T* a, const T* x, const Sizes& s, u32 first, u32 step) {
    constexpr int LENGTH = Vector<T>::LENGTH;
    bool vectors = s.k_stride == 1 && s.x_stride == 1 && ((u64)a | (u64)x) % 16 == 0;
    i64 whole = vectors ? s.k / LENGTH : 0;
    A sum = 0;
#pragma unroll 4
    for (i64 i = first; i < whole; i += step) {
        Vector<T> va = reinterpret_cast<const Vector<T>*>(a)[i], vx = reinterpret_cast<const Vector<T>*>(x)[i];
        for (int e = 0; e < LENGTH; e++) sum += load(va.at[e]) * load(vx.at[e]);
    }
#pragma unroll 4
    for (i64 i = whole * LENGTH + first; i < s.k; i += step) sum += load(a[i * s.k_stride]) * load(x[i * s.x_stride]);
    return sum;
}

__device__ __forceinline__ void finish(const Output<T>& out, const Sizes& s, i64 row, A sum) {
    A sums[1] = {sum};
    out.epilogue.finish(out.c, sums, row, row % s.rows * s.column_stride);
}

// A warp, or a block, for each row, counted through all matrices.
template <bool BLOCK>
__device__ __forceinline__ void by_row(const T* a, const T* x, const Output<T>& out, const Sizes& s, const Layout<2>& batch) {
    i64 row = BLOCK ? (i64)blockIdx.x : (i64)blockIdx.x * WARPS + threadIdx.x / WARP, at[2];
    if (row >= s.rows * s.batches) return;
    batch.find(row / s.rows, at);
    a += at[0] + row % s.rows * s.row_stride, x += at[1];
    A sum = dot(a, x, s, BLOCK ? threadIdx.x : threadIdx.x % WARP, BLOCK ? THREADS : WARP);
    sum = BLOCK ? block_reduce<Sum<A>>(sum) : warp_reduce<Sum<A>>(sum);
    if (threadIdx.x % (BLOCK ? THREADS : WARP) == 0) finish(out, s, row, sum);
}

// For rows that lie side by side: each lane has EACH of them, and each warp of a block every eighth place of the block's part of
// K. Of several parts each leaves its sums in memory (see split_k.cu).
template <int EACH>
__device__ __forceinline__ void side_by_side(const T* a, const T* x, const Output<T>& out, const Sizes& s, const Layout<2>& batch,
                                             i64 part) {
    typedef Vector<T> V;
    __shared__ A sums[WARPS][WARP * EACH];
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    i64 blocks = (s.rows + WARP * EACH - 1) / (WARP * EACH), matrix = blockIdx.x / blocks, at[2];
    i64 first = blockIdx.x % blocks * WARP * EACH, row = first + lane * EACH;
    batch.find(matrix, at);
    a += at[0] + row, x += at[1];
    i64 start = blockIdx.y * part, end = start + part < s.k ? start + part : s.k;
    A sum[EACH] = {};
    if (row < s.rows) {
#pragma unroll 4
        for (i64 k = start + warp; k < end; k += WARPS) {
            V v;
            if (EACH > 1) v = *reinterpret_cast<const V*>(a + k * s.k_stride);
            else v.at[0] = a[k * s.k_stride];
            A factor = load(x[k * s.x_stride]);
            for (int e = 0; e < EACH; e++) sum[e] += load(v.at[e]) * factor;
        }
    }
    for (int e = 0; e < EACH; e++) sums[warp][lane * EACH + e] = sum[e];
    __syncthreads();
    for (u32 i = threadIdx.x; i < WARP * EACH && first + i < s.rows; i += THREADS) {
        A total = sums[0][i];
        for (int w = 1; w < WARPS; w++) total += sums[w][i];
        i64 place = matrix * s.rows + first + i;
        if (out.parts) out.parts[blockIdx.y * s.rows * s.batches + place] = total;
        else finish(out, s, place, total);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) by_warp(const T* a, const T* x, Output<T> out, Sizes s, Layout<2> batch) {
    by_row<false>(a, x, out, s, batch);
}
extern "C" __global__ void __launch_bounds__(THREADS) by_block(const T* a, const T* x, Output<T> out, Sizes s, Layout<2> batch) {
    by_row<true>(a, x, out, s, batch);
}
extern "C" __global__ void __launch_bounds__(THREADS)
    by_lane(const T* a, const T* x, Output<T> out, Sizes s, Layout<2> batch, i64 part) {
    side_by_side<1>(a, x, out, s, batch, part);
}
extern "C" __global__ void __launch_bounds__(THREADS)
    by_lane_vectors(const T* a, const T* x, Output<T> out, Sizes s, Layout<2> batch, i64 part) {
    side_by_side<Vector<T>::LENGTH>(a, x, out, s, batch, part);
}
