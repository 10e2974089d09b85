// C = Σ_s parts[s] and its epilogue (epilogue.cuh): the last step of a product whose K was cut into S parts (split K).
//
// A product whose C is small and whose K is long, as a weight's gradient has it, makes too few tiles to fill the card. So each tile
// is made several times, by blocks that have a part of K each and leave their sums in memory, not rounded. Adding them up is limited
// by memory: S numbers are read for one that is written. They are added in the order of the parts, so that the same operands give the same bits.
#include "matmul.cuh"

// The elements of C, and the columns.
struct Extents { i64 numel, n; };

template <class T>
__device__ __forceinline__ void add_parts(const Output<T>& out, const Extents& e, i64 count) {
    for (i64 i = thread_in_grid(); i < e.numel; i += threads_in_grid()) {
        compute_t<T> sum[1] = {out.parts[i]};
#pragma unroll 4
        for (i64 p = 1; p < count; p++) sum[0] += out.parts[p * e.numel + i];
        out.epilogue.finish(out.c, sum, i, i % e.n);
    }
}

#define KERNEL(T) \
    extern "C" __global__ void add_parts_##T(Output<T> out, Extents e, i64 count) { add_parts(out, e, count); }
KERNEL(f32)
KERNEL(f64)
KERNEL(f16)
KERNEL(bf16)

// Of 8-bit integers (int_mm.cu): sums modulo 2³², which have no epilogue.
extern "C" __global__ void add_parts_i32(Output<i32> out, Extents e, i64 count) {
    for (i64 i = thread_in_grid(); i < e.numel; i += threads_in_grid()) {
        u32 sum = 0;
#pragma unroll 4
        for (i64 p = 0; p < count; p++) sum += (u32)out.parts[p * e.numel + i];
        out.c[i] = (i32)sum;
    }
}
