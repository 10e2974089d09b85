// Step 5: 16 bytes at a time.
//
// Bandwidth comes from bytes on their way, and how many loads a multiprocessor keeps track of is limited: each had better ask for
// as much as it can, four numbers. Rows then begin at multiples of 16 bytes, so N is a multiple of 4. The shipping kernel
// (softmax.cu, in the words of rows.cuh) adds what other shapes need: a warp for a short row, other types, rows that lie
// across memory, rows too long for registers.
#include "reduction.cuh"

constexpr int THREADS = 256, KEPT = 8;

extern "C" __global__ void __launch_bounds__(THREADS) softmax(const f32* x, f32* y, int rows, int n) {
    typedef Vector<f32> Four;
    const Four* from = reinterpret_cast<const Four*>(x + (i64)blockIdx.x * n);
    Four* to = reinterpret_cast<Four*>(y + (i64)blockIdx.x * n);
    Four kept[KEPT];
    f32 max = smallest_of(f32(0)), sum = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int i = k * THREADS + threadIdx.x;
        if (i < n / 4) kept[k] = from[i];
#pragma unroll
        for (int e = 0; e < 4; e++) {
            if (i >= n / 4) kept[k].at[e] = smallest_of(f32(0));
            max = fmaxf(max, kept[k].at[e]);
        }
    }
    max = block_reduce<Max<f32>>(max);
#pragma unroll
    for (int k = 0; k < KEPT; k++)
#pragma unroll
        for (int e = 0; e < 4; e++) sum += kept[k].at[e] = expf(kept[k].at[e] - max);
    f32 share = 1 / block_reduce<Sum<f32>>(sum);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int i = k * THREADS + threadIdx.x;
#pragma unroll
        for (int e = 0; e < 4; e++) kept[k].at[e] *= share;
        if (i < n / 4) to[i] = kept[k];
    }
}
