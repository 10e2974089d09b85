// Step 3: the maximum and the sum in one pass (M. Milakov, N. Gimelshein 2018, arXiv:1805.02867).
//
// A sum relative to an old maximum m is brought to a new one, m', by a factor: Σ e^{x − m'} = e^{m − m'} Σ e^{x − m}. So the row is
// read twice instead of three times, and what two threads have seen can be put together in any order. Within a warp they tell each
// other by shuffles, which need no memory and no barrier; only the eight warps meet in shared memory.
#include "reduction.cuh"

constexpr int THREADS = 256;

// The largest number seen, and Σ e^{x − max}.
struct Seen { f32 max, sum; };

// What a lane far away has seen; `reduction.cuh` calls it.
__device__ __forceinline__ Seen other_lane(Seen x, int bit) { return {other_lane(x.max, bit), other_lane(x.sum, bit)}; }

struct Both {
    // Finite, so that nothing becomes ∞ − ∞.
    __device__ static __forceinline__ Seen identity() { return {-3.4e38f, 0}; }
    __device__ static __forceinline__ Seen combine(Seen a, Seen b) {
        f32 max = fmaxf(a.max, b.max);
        return {max, a.sum * expf(a.max - max) + b.sum * expf(b.max - max)};
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) softmax(const f32* x, f32* y, int rows, int n) {
    x += (i64)blockIdx.x * n, y += (i64)blockIdx.x * n;
    Seen seen = Both::identity();
    for (int i = threadIdx.x; i < n; i += THREADS) seen = Both::combine(seen, {x[i], 1});
    seen = block_reduce<Both>(seen);
    f32 share = 1 / seen.sum;
    for (int i = threadIdx.x; i < n; i += THREADS) y[i] = expf(x[i] - seen.max) * share;
}
