// Step 3: mean and variance in one pass.
//
// σ² = E[x²] − μ² needs only sums, but loses all digits where μ is large beside σ. Welford's recurrence (1962) keeps the mean and
// M = Σ (x − mean)², and two such pairs of n_a and n_b numbers come together exactly (T. Chan et al. 1979):
//
//     δ = μ_b − μ_a,   μ = μ_a + δ n_b / n,   M = M_a + M_b + δ² n_a n_b / n,   n = n_a + n_b
//
// The row is read twice instead of three times, for a division for each number.
#include "reduction.cuh"

constexpr int THREADS = 256;

// Of how many numbers: their mean, and the sum of squared distances from it.
struct Moments { f32 count, mean, squares; };

// What another lane has seen; `reduction.cuh` calls it.
__device__ __forceinline__ Moments other_lane(Moments x, int bit) {
    return {other_lane(x.count, bit), other_lane(x.mean, bit), other_lane(x.squares, bit)};
}

struct Together {
    __device__ static __forceinline__ Moments identity() { return {0, 0, 0}; }
    __device__ static __forceinline__ Moments combine(Moments a, Moments b) {
        f32 count = a.count + b.count, share = count > 0 ? b.count / count : 0, distance = b.mean - a.mean;
        return {count, a.mean + distance * share, a.squares + b.squares + distance * distance * a.count * share};
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) layer_norm(const f32* x, f32* y, int rows, int n, f32 eps) {
    x += (i64)blockIdx.x * n, y += (i64)blockIdx.x * n;
    Moments seen = Together::identity();
    for (int i = threadIdx.x; i < n; i += THREADS) seen = Together::combine(seen, {1, x[i], 0});
    seen = block_reduce<Together>(seen);
    f32 scale = 1 / sqrtf(seen.squares / n + eps);
    for (int i = threadIdx.x; i < n; i += THREADS) y[i] = (x[i] - seen.mean) * scale;
}
