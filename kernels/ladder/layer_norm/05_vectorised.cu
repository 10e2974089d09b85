// Step 5: 16 bytes at a time.
//
// Bandwidth comes from bytes on their way, and how many loads a multiprocessor keeps track of is limited: each had better ask for
// as much as it can, four numbers. Rows then begin at multiples of 16 bytes, so N is a multiple of 4. The shipping kernel (norm.cuh,
// in the words of rows.cuh) adds weight and bias, what the gradient needs, and what other shapes need: a warp for a
// short row, other types, rows too long for registers.
#include "reduction.cuh"

constexpr int THREADS = 256, KEPT = 8;

extern "C" __global__ void __launch_bounds__(THREADS) layer_norm(const f32* x, f32* y, int rows, int n, f32 eps) {
    typedef Vector<f32> Four;
    const Four* from = reinterpret_cast<const Four*>(x + (i64)blockIdx.x * n);
    Four* to = reinterpret_cast<Four*>(y + (i64)blockIdx.x * n);
    Four kept[KEPT] = {};
    f32 mean = 0, variance = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int i = k * THREADS + threadIdx.x;
        if (i < n / 4) kept[k] = from[i];
#pragma unroll
        for (int e = 0; e < 4; e++) mean += kept[k].at[e];
    }
    mean = block_reduce<Sum<f32>>(mean) / n;
#pragma unroll
    for (int k = 0; k < KEPT; k++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            kept[k].at[e] -= mean;
            if (k * THREADS + threadIdx.x < n / 4) variance += kept[k].at[e] * kept[k].at[e];
        }
    f32 scale = 1 / sqrtf(block_reduce<Sum<f32>>(variance) / n + eps);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int i = k * THREADS + threadIdx.x;
#pragma unroll
        for (int e = 0; e < 4; e++) kept[k].at[e] *= scale;
        if (i < n / 4) to[i] = kept[k];
    }
}
