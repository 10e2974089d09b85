// Stable sort along one dimension. Values become whole numbers of the same order (NaN above all, 0 and −0 equal), which are
// sorted together with their positions by a bitonic network (K. E. Batcher 1968): no two pairs are equal, so the order is
// the stable one. A line has room for `room` pairs, a power of two; pairs beyond its `n` elements sort to the end.
//
// Steps between pairs at most TILE apart run in shared memory, one launch for as many as there are; the others cost a launch each.
#include "layout.cuh"

constexpr u32 TILE = 2048;

__device__ __forceinline__ u64 order(f64 x) {
    if (x != x) return ~0ull;
    u64 bits = (u64)__double_as_longlong(x + 0.0);
    return bits >> 63 ? ~bits : bits | 1ull << 63;
}
__device__ __forceinline__ u64 order(f32 x) { return order(f64(x)); }
__device__ __forceinline__ u64 order(i64 x) { return (u64)x ^ 1ull << 63; }
__device__ __forceinline__ u64 order(i32 x) { return order(i64(x)); }
__device__ __forceinline__ u64 order(i8 x) { return order(i64(x)); }
__device__ __forceinline__ u64 order(u8 x) { return order(i64(x)); }

struct Pair {
    u64 key;
    i64 at;
};

__device__ __forceinline__ bool after(const Pair& a, const Pair& b) { return a.key != b.key ? a.key > b.key : a.at > b.at; }

// Orders the pairs at `i` and `i + step`: upwards or, in every other run of `length`, downwards.
__device__ __forceinline__ void exchange(Pair* pairs, i64 at, u64 i, u32 length, u32 step) {
    Pair a = pairs[at], b = pairs[at + step];
    bool up = (i & length) == 0;
    if (after(a, b) == up) {
        pairs[at] = b;
        pairs[at + step] = a;
    }
}

#define KERNEL(name, X)                                                                                           \
    extern "C" __global__ void sort_pairs_##name(const X* x, Pair* pairs, Layout<1> lines, i64 n, i64 stride, i64 room, u64 flip) { \
        for (i64 i = thread_in_grid(); i < lines.numel * room; i += threads_in_grid()) {                          \
            i64 base[1], at = i % room;                                                                           \
            lines.find(i / room, base);                                                                           \
            pairs[i] = Pair{at < n ? order(load(x[base[0] + at * stride])) ^ flip : ~0ull, at};                   \
        }                                                                                                         \
    }
KERNEL(f32, f32)
KERNEL(f64, f64)
KERNEL(f16, f16)
KERNEL(bf16, bf16)
KERNEL(i64, i64)
KERNEL(i32, i32)
KERNEL(i8, i8)
KERNEL(u8, u8)
KERNEL(bool, u8)

// All steps from (length, step) up to runs of `last`, in tiles of `tile` pairs, two for each thread.
extern "C" __global__ void sort_tiles(Pair* pairs, u32 room, u32 tile, u32 length, u32 step, u32 last) {
    __shared__ Pair kept[TILE];
    i64 first = (i64)blockIdx.x * tile;
    for (u32 i = threadIdx.x; i < tile; i += blockDim.x) kept[i] = pairs[first + i];
    __syncthreads();
    for (; length <= last; length *= 2, step = length / 2) {
        for (; step > 0; step /= 2) {
            for (u32 t = threadIdx.x; t < tile / 2; t += blockDim.x) {
                u32 i = t / step * 2 * step + t % step;
                exchange(kept, i, (u64)(first + i) % room, length, step);
            }
            __syncthreads();
        }
    }
    for (u32 i = threadIdx.x; i < tile; i += blockDim.x) pairs[first + i] = kept[i];
}

// One step between pairs that are further apart.
extern "C" __global__ void sort_step(Pair* pairs, u32 room, i64 exchanges, u32 length, u32 step) {
    for (i64 t = thread_in_grid(); t < exchanges; t += threads_in_grid()) {
        i64 i = t / step * 2 * step + t % step;
        exchange(pairs, i, (u64)i % room, length, step);
    }
}

// The positions of the first `k` of each line.
extern "C" __global__ void sort_positions(const Pair* pairs, i64* y, Layout<1> lines, i64 k, i64 stride, i64 room) {
    for (i64 i = thread_in_grid(); i < lines.numel * k; i += threads_in_grid()) {
        i64 base[1];
        lines.find(i / k, base);
        y[base[0] + i % k * stride] = pairs[i / k * room + i % k].at;
    }
}
