// Step 2: no scores in memory (FlashAttention: T. Dao et al. 2022, arXiv:2205.14135).
//
// Softmax needs the whole row only for its maximum and its sum, and both can follow as scores come. Of each query we keep the largest
// score so far m, the sum l of e^{s − m}, and the sum o of e^{s − m} V; a further score s does
//
//     m' = max(m, s),   l' = e^{m − m'} l + e^{s − m'},   o' = e^{m − m'} o + e^{s − m'} v
//
// and o / l is the answer. A thread has a query, whose q and o are in its registers, and walks over all keys, which all threads
// of a block read at the same time. Each of them is read from the caches by each block, 512 bytes for 256 operations of a thread.
#include "reduction.cuh"

constexpr int D = 64, QUERIES = 128;

extern "C" __global__ void __launch_bounds__(QUERIES)
    attention(const f32* q, const f32* k, const f32* v, f32* o, int time, f32 scale) {
    i64 head = (i64)blockIdx.y * time * D;
    int i = blockIdx.x * QUERIES + threadIdx.x;
    if (i >= time) return;
    f32 query[D], sums[D] = {}, m = smallest_of(f32(0)), l = 0;
#pragma unroll
    for (int d = 0; d < D; d++) query[d] = q[head + (i64)i * D + d] * scale;
#pragma unroll 1
    for (int j = 0; j < time; j++) {
        const f32 *key = k + head + (i64)j * D, *value = v + head + (i64)j * D;
        f32 s = 0;
#pragma unroll
        for (int d = 0; d < D; d++) s += query[d] * key[d];
        f32 larger = fmaxf(m, s), decay = expf(m - larger), weight = expf(s - larger);
        l = l * decay + weight;
        m = larger;
#pragma unroll
        for (int d = 0; d < D; d++) sums[d] = sums[d] * decay + weight * value[d];
    }
#pragma unroll
    for (int d = 0; d < D; d++) o[head + (i64)i * D + d] = sums[d] / l;
}
