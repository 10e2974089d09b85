// Step 2: a block for each row, so that neighbouring threads read neighbours.
//
// Each thread takes every 256th element, and the 256 results become one in a tree in shared memory: 128 threads add what the other
// 128 have, 64 of them what the other 64 have, … The row is still read three times.
#include "types.cuh"

constexpr int THREADS = 256;

// OP over all threads' values, in all threads.
template <class OP> __device__ __forceinline__ f32 tree(f32 x, OP op) {
    __shared__ f32 values[THREADS];
    values[threadIdx.x] = x;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) values[threadIdx.x] = op(values[threadIdx.x], values[threadIdx.x + half]);
        __syncthreads();
    }
    f32 all = values[0];
    // Nobody overwrites it before everybody has read it.
    __syncthreads();
    return all;
}

struct Larger { __device__ f32 operator()(f32 a, f32 b) const { return fmaxf(a, b); } };
struct Plus { __device__ f32 operator()(f32 a, f32 b) const { return a + b; } };

extern "C" __global__ void __launch_bounds__(THREADS) softmax(const f32* x, f32* y, int rows, int n) {
    x += (i64)blockIdx.x * n, y += (i64)blockIdx.x * n;
    // An element of the row, which thread 0 has anyway, stands for those that a thread of a short row has not.
    f32 max = x[0], sum = 0;
    for (int i = threadIdx.x; i < n; i += THREADS) max = fmaxf(max, x[i]);
    max = tree(max, Larger{});
    for (int i = threadIdx.x; i < n; i += THREADS) sum += expf(x[i] - max);
    sum = tree(sum, Plus{});
    for (int i = threadIdx.x; i < n; i += THREADS) y[i] = expf(x[i] - max) / sum;
}
