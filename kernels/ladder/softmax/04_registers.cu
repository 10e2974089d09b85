// Step 4: the row stays in registers.
//
// 256 threads have room for 32 numbers each, a row of 8192. Then it is read once, and step 3's arithmetic (an exponential more for
// each number, to bring sums together) is not needed any more: with the numbers at hand, the plain two passes cost nothing.
// One read and one write of each number is all that memory has to do: what is left is to ask for it in larger pieces.
#include "reduction.cuh"

constexpr int THREADS = 256, KEPT = 32;

extern "C" __global__ void __launch_bounds__(THREADS) softmax(const f32* x, f32* y, int rows, int n) {
    x += (i64)blockIdx.x * n, y += (i64)blockIdx.x * n;
    // Unrolled, so that each number has a register: those have no addresses.
    f32 kept[KEPT], max = smallest_of(f32(0)), sum = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int i = k * THREADS + threadIdx.x;
        kept[k] = i < n ? x[i] : smallest_of(f32(0));
        max = fmaxf(max, kept[k]);
    }
    max = block_reduce<Max<f32>>(max);
#pragma unroll
    for (int k = 0; k < KEPT; k++) sum += kept[k] = expf(kept[k] - max);
    f32 share = 1 / block_reduce<Sum<f32>>(sum);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int i = k * THREADS + threadIdx.x;
        if (i < n) y[i] = kept[k] * share;
    }
}
