// y = x[index] along one dimension, and its adjoint, y[index] += x.
#include "layout.cuh"

// An index that is in range; which it is unless `index_check.cu` has found out otherwise.
__device__ __forceinline__ i64 within(i64 i, i64 n) { return i < 0 ? 0 : i < n ? i : n - 1; }

// Element `o` of `y` is that of `x` at the same place but along the dimension, where it is `index`. `at`: index, x without the
// dimension, y.
#define GATHER(name, T)                                                                                           \
    extern "C" __global__ void gather_##name(const i64* index, const T* x, T* y, Layout<3> at, i64 n, i64 stride) { \
        for (i64 o = thread_in_grid(); o < at.numel; o += threads_in_grid()) {                                    \
            i64 from[3];                                                                                          \
            at.find(o, from);                                                                                     \
            y[from[2]] = x[from[1] + within(index[from[0]], n) * stride];                                         \
        }                                                                                                         \
    }
GATHER(u8, u8)
GATHER(f16, u16)
GATHER(i32, u32)
GATHER(i64, u64)

// For each line along the dimension (`lines`: index, source, y) the `m` sources are added one after another, so that the sum has one
// order and the same bits every time. The block row `blockIdx.y` writes a range of the line's `n` elements of its own, and passes
// over the sources that belong elsewhere.
template <class T>
__device__ __forceinline__ void scatter_add(const i64* index, const T* source, T* y, const Layout<3>& lines, i64 m, i64 n, i64 index_stride, i64 source_stride, i64 y_stride) {
    i64 line = thread_in_grid(), range = (n + gridDim.y - 1) / gridDim.y, first = blockIdx.y * range;
    if (line >= lines.numel) return;
    i64 at[3];
    lines.find(line, at);
    for (i64 j = 0; j < m; j++) {
        i64 to = index[at[0] + j * index_stride];
        if (to >= first && to < first + range && to < n) {
            T& sum = y[at[2] + to * y_stride];
            sum = T(sum + source[at[1] + j * source_stride]);
        }
    }
}

#define SCATTER_ADD(name, T)                                                                                      \
    extern "C" __global__ void scatter_add_##name(const i64* index, const T* source, T* y, Layout<3> lines, i64 m, i64 n, \
                                                  i64 index_stride, i64 source_stride, i64 y_stride) {            \
        scatter_add<T>(index, source, y, lines, m, n, index_stride, source_stride, y_stride);                     \
    }
SCATTER_ADD(f32, f32)
SCATTER_ADD(f64, f64)
SCATTER_ADD(i64, u64)
SCATTER_ADD(i32, u32)
SCATTER_ADD(i8, u8)
SCATTER_ADD(u8, u8)
