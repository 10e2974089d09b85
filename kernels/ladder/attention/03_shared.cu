// Step 3: keys and values pass through shared memory, 32 at a time.
//
// All threads of the block bring them together, 16 bytes each, neighbours side by side, and then read the same number at the same
// time, which shared memory answers at once. With the scores of 32 keys at hand, sums are brought to a new maximum once for 32 keys
// instead of for each. Now arithmetic is the limit: every product is an instruction of a thread.
#include "reduction.cuh"

constexpr int D = 64, QUERIES = 128, KEYS = 32;

// Rows of `from`, of which `rows` are there, and zeros behind them.
__device__ __forceinline__ void copy(f32 (&tile)[KEYS][D], const f32* from, int rows) {
    for (int t = threadIdx.x; t < KEYS * D / 4; t += QUERIES) {
        Vector<f32> four = {};
        if (t / (D / 4) < rows) four = reinterpret_cast<const Vector<f32>*>(from)[t];
        reinterpret_cast<Vector<f32>*>(tile)[t] = four;
    }
}

extern "C" __global__ void __launch_bounds__(QUERIES)
    attention(const f32* q, const f32* k, const f32* v, f32* o, int time, f32 scale) {
    __shared__ __align__(16) f32 keys[KEYS][D], values[KEYS][D];
    i64 head = (i64)blockIdx.y * time * D;
    int i = blockIdx.x * QUERIES + threadIdx.x;
    // A thread behind the last query helps to copy; what it has nobody sees.
    f32 query[D], sums[D] = {}, m = smallest_of(f32(0)), l = 0;
#pragma unroll
    for (int d = 0; d < D; d++) query[d] = i < time ? q[head + (i64)i * D + d] * scale : 0;
#pragma unroll 1
    for (int j0 = 0; j0 < time; j0 += KEYS) {
        copy(keys, k + head + (i64)j0 * D, time - j0);
        copy(values, v + head + (i64)j0 * D, time - j0);
        __syncthreads();
        f32 s[KEYS], larger = m;
#pragma unroll
        for (int j = 0; j < KEYS; j++) {
            s[j] = 0;
#pragma unroll
            for (int d = 0; d < D; d++) s[j] += query[d] * keys[j][d];
            if (j0 + j >= time) s[j] = smallest_of(f32(0));
            larger = fmaxf(larger, s[j]);
        }
        f32 decay = expf(m - larger);
        l *= decay;
        m = larger;
#pragma unroll
        for (int d = 0; d < D; d++) sums[d] *= decay;
#pragma unroll
        for (int j = 0; j < KEYS; j++) {
            f32 weight = expf(s[j] - m);
            l += weight;
#pragma unroll
            for (int d = 0; d < D; d++) sums[d] += weight * values[j][d];
        }
        __syncthreads();
    }
#pragma unroll
    for (int d = 0; d < D; d++)
        if (i < time) o[head + (i64)i * D + d] = sums[d] / l;
}
