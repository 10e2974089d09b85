// Weights of the format q8_0: blocks of an f16 scale d and 32 integers q of 8 bits, w = d · q, 34 bytes in all.
//
// Blocks begin at even addresses only, so two bytes are what can be read at once. A warp takes four blocks at a time, eight lanes
// each, so that it reads neighbouring bytes; the memory's bandwidth is the limit, and a weight is a byte of it instead of four.
#include "layout.cuh"
#include "reduction.cuh"

constexpr int LENGTH = 32, BYTES = 2 + LENGTH;
// Of each lane: its weights of a block; blocks that a warp takes at a time; and the rows of x that share what is read of the weights.
constexpr int EACH = 4, AT_ONCE = 32 * EACH / LENGTH, ROWS = 4;

struct alignas(16) Four { f32 at[EACH]; };

// Weights `part` · EACH and on of a block.
__device__ __forceinline__ Four decode(const u8* block, u32 part) {
    const u16* words = reinterpret_cast<const u16*>(block);
    f32 scale = load(f16{words[0]});
    u32 low = words[1 + 2 * part], high = words[2 + 2 * part];
    return {scale * (i8)(low & 255), scale * (i8)(low >> 8), scale * (i8)(high & 255), scale * (i8)(high >> 8)};
}

extern "C" __global__ void dequantize(const u8* blocks, f32* w, i64 count) {
    for (i64 i = thread_in_grid(); i < count * (LENGTH / EACH); i += threads_in_grid())
        reinterpret_cast<Four*>(w)[i] = decode(blocks + i / (LENGTH / EACH) * BYTES, i % (LENGTH / EACH));
}

// y[r, i] = Σ_k w[i, k] · x[r, k]: a warp for each row i of the weights, for ROWS rows r ≥ ROWS · blockIdx.y of x, which is row-major.
extern "C" __global__ void __launch_bounds__(256) matvec(const u8* blocks, const f32* x, f32* y, i64 n, i64 k, i64 m) {
    i64 i = (i64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, first = (i64)blockIdx.y * ROWS;
    if (i >= n) return;
    u32 lane = threadIdx.x % WARP, part = lane % (LENGTH / EACH);
    const u8* row = blocks + i * (k / LENGTH) * BYTES;
    f32 sums[ROWS] = {};
#pragma unroll 4
    for (i64 block = lane / (LENGTH / EACH); block < k / LENGTH; block += AT_ONCE) {
        Four weights = decode(row + block * BYTES, part);
        const f32* from = x + first * k + block * LENGTH + part * EACH;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (first + r >= m) break;
            Four numbers = *reinterpret_cast<const Four*>(from + r * k);
            for (int e = 0; e < EACH; e++) sums[r] += weights.at[e] * numbers.at[e];
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        f32 sum = warp_reduce<Sum<f32>>(sums[r]);
        if (lane == 0 && first + r < m) y[(first + r) * n + i] = sum;
    }
}
