// Step 4: the row stays in registers.
//
// 256 threads have room for 32 numbers each, a row of 8192. Then it is read once, and with the numbers at hand the plain two passes of
// step 1 cost no memory: neither step 3's divisions nor its care are needed. One read and one write of each number is
// all that memory has to do: what is left is to ask for it in larger pieces.
#include "reduction.cuh"

constexpr int THREADS = 256, KEPT = 32;

extern "C" __global__ void __launch_bounds__(THREADS) layer_norm(const f32* x, f32* y, int rows, int n, f32 eps) {
    x += (i64)blockIdx.x * n, y += (i64)blockIdx.x * n;
    // Unrolled, so that each number has a register: those have no addresses.
    f32 kept[KEPT], mean = 0, variance = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int i = k * THREADS + threadIdx.x;
        kept[k] = i < n ? x[i] : 0;
        mean += kept[k];
    }
    mean = block_reduce<Sum<f32>>(mean) / n;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        f32 distance = k * THREADS + threadIdx.x < n ? kept[k] - mean : 0;
        variance += distance * distance;
    }
    f32 scale = 1 / sqrtf(block_reduce<Sum<f32>>(variance) / n + eps);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int i = k * THREADS + threadIdx.x;
        if (i < n) y[i] = (kept[k] - mean) * scale;
    }
}
