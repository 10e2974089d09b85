// y = A · x + bias, a matrix times a vector: C = A · B with one column, and with one row, where the matrix is B transposed.
// Each number of A is needed once, so that all there is to do is to read it as fast as memory gives it: neighbouring threads
// read neighbours, 16 bytes each if they can. Sums are added up in an order that depends on the shape alone.
#include "layout.cuh"
#include "reduction.cuh"

constexpr int THREADS = 256, WARPS = THREADS / WARP;

struct Sizes {
    i64 rows, k;
    // Of A to the next row and along K, of x, and of the bias: 0 if it is one number for all rows.
    i64 row_stride, k_stride, x_stride, bias_stride;
    i64 batches;
};

// One row's product, as far as this thread of `step` adds it up.
template <class T>
__device__ __forceinline__ compute_t<T> dot(const T* a, const T* x, const Sizes& s, u32 first, u32 step) {
    constexpr int LENGTH = Vector<T>::LENGTH;
    bool vectors = s.k_stride == 1 && s.x_stride == 1 && ((u64)a | (u64)x) % 16 == 0;
    i64 whole = vectors ? s.k / LENGTH : 0;
    compute_t<T> sum = 0;
#pragma unroll 4
    for (i64 i = first; i < whole; i += step) {
        Vector<T> va = reinterpret_cast<const Vector<T>*>(a)[i], vx = reinterpret_cast<const Vector<T>*>(x)[i];
        for (int e = 0; e < LENGTH; e++) sum += load(va.at[e]) * load(vx.at[e]);
    }
#pragma unroll 4
    for (i64 i = whole * LENGTH + first; i < s.k; i += step) sum += load(a[i * s.k_stride]) * load(x[i * s.x_stride]);
    return sum;
}

template <class T>
__device__ __forceinline__ void finish(T* y, const T* bias, const Sizes& s, i64 row, compute_t<T> sum) {
    y[row] = store<T>(bias ? sum + load(bias[row % s.rows * s.bias_stride]) : sum);
}

// A warp, or a block, for each row, counted through all matrices.
template <class T, bool BLOCK>
__device__ __forceinline__ void by_row(const T* a, const T* x, const T* bias, T* y, const Sizes& s, const Layout<2>& batch) {
    i64 row = BLOCK ? (i64)blockIdx.x : (i64)blockIdx.x * WARPS + threadIdx.x / WARP, at[2];
    if (row >= s.rows * s.batches) return;
    batch.find(row / s.rows, at);
    a += at[0] + row % s.rows * s.row_stride, x += at[1];
    compute_t<T> sum = dot(a, x, s, BLOCK ? threadIdx.x : threadIdx.x % WARP, BLOCK ? THREADS : WARP);
    sum = BLOCK ? block_reduce<Sum<compute_t<T>>>(sum) : warp_reduce<Sum<compute_t<T>>>(sum);
    if (threadIdx.x % (BLOCK ? THREADS : WARP) == 0) finish(y, bias, s, row, sum);
}

// For rows that lie side by side: each lane has EACH of them, and each warp of a block every eighth place of the block's part of
// K. Of several parts each leaves its sums in `parts` (see split_k.cu).
template <class T, int EACH>
__device__ __forceinline__ void side_by_side(const T* a, const T* x, const T* bias, T* y, compute_t<T>* parts, const Sizes& s,
                                             const Layout<2>& batch, i64 part) {
    typedef compute_t<T> A;
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
        i64 out = matrix * s.rows + first + i;
        if (gridDim.y == 1) finish(y, bias, s, out, total);
        else parts[blockIdx.y * s.rows * s.batches + out] = total;
    }
}

#define KERNELS(name, T)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                         \
        by_warp_##name(const T* a, const T* x, const T* bias, T* y, Sizes s, Layout<2> batch) {                   \
        by_row<T, false>(a, x, bias, y, s, batch);                                                                \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                         \
        by_block_##name(const T* a, const T* x, const T* bias, T* y, Sizes s, Layout<2> batch) {                  \
        by_row<T, true>(a, x, bias, y, s, batch);                                                                 \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                         \
        by_lane_##name(const T* a, const T* x, const T* bias, T* y, Sizes s, Layout<2> batch,                     \
                       compute_t<T>* parts, i64 part) {                                                           \
        side_by_side<T, 1>(a, x, bias, y, parts, s, batch, part);                                                 \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                         \
        by_lane_vectors_##name(const T* a, const T* x, const T* bias, T* y, Sizes s, Layout<2> batch,             \
                               compute_t<T>* parts, i64 part) {                                                   \
        side_by_side<T, Vector<T>::LENGTH>(a, x, bias, y, parts, s, batch, part);                                 \
    }
KERNELS(f32, f32)
KERNELS(f64, f64)
KERNELS(f16, f16)
KERNELS(bf16, bf16)
