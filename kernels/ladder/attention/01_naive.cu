// Step 1: as it stands in the paper (A. Vaswani et al. 2017), in three kernels.
//
//     S = scale · Q Kᵀ,   P = softmax(S),   O = P V,   Q, K, V and O [H, T, D] with D = 64
//
// A thread for each score, a warp for each row of the softmax, a thread for each number of O. What takes the time is memory: the T × T
// scores of each head are written, read and written, and read again, while all that goes in and comes out is T × D.
#include "reduction.cuh"

constexpr int D = 64;

extern "C" __global__ void __launch_bounds__(256) scores(const f32* q, const f32* k, f32* s, int time, f32 scale) {
    int j = blockIdx.x * 256 + threadIdx.x, i = blockIdx.y, head = blockIdx.z;
    if (j >= time) return;
    q += ((i64)head * time + i) * D, k += ((i64)head * time + j) * D;
    f32 sum = 0;
    for (int d = 0; d < D; d++) sum += q[d] * k[d];
    s[((i64)head * time + i) * time + j] = sum * scale;
}

extern "C" __global__ void __launch_bounds__(256) softmax(f32* s, i64 rows, int time) {
    i64 row = (i64)blockIdx.x * (256 / WARP) + threadIdx.x / WARP;
    if (row >= rows) return;
    s += row * time;
    f32 max = smallest_of(f32(0)), sum = 0;
    for (int j = lane_id(); j < time; j += WARP) max = fmaxf(max, s[j]);
    max = warp_reduce<Max<f32>>(max);
    for (int j = lane_id(); j < time; j += WARP) sum += expf(s[j] - max);
    sum = warp_reduce<Sum<f32>>(sum);
    for (int j = lane_id(); j < time; j += WARP) s[j] = expf(s[j] - max) / sum;
}

extern "C" __global__ void __launch_bounds__(D) values(const f32* p, const f32* v, f32* o, int time) {
    int d = threadIdx.x, i = blockIdx.y, head = blockIdx.z;
    p += ((i64)head * time + i) * time, v += (i64)head * time * D;
    f32 sum = 0;
    for (int j = 0; j < time; j++) sum += p[j] * v[(i64)j * D + d];
    o[((i64)head * time + i) * D + d] = sum;
}
