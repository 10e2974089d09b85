// y[…, index[j], …] += x[…, j, …]: the adjoint of an embedding.
//
// `index` comes sorted, `from` says where each stood (a stable sort: sort.cu), so that the sources of one destination lie side by
// side, in the order in which they were. A thread has one line along the dimension and adds up, one source after another, each
// run that begins among `piece` indices: nobody else writes there, and the sum has the same bits every time.
//
// Each source is read once, by neighbouring threads where lines lie side by side. What limits it are long runs, as the
// sources of one destination are added by one thread.
#include "layout.cuh"

template <class X>
__device__ __forceinline__ void index_add(const i64* index, const i64* from, const X* source, X* y, const Layout<2>& lines, i64 m, i64 n,
                                          i64 piece, i64 source_stride, i64 y_stride) {
    i64 line = thread_in_grid(), first = blockIdx.y * piece;
    if (line >= lines.numel) return;
    i64 at[2];
    lines.find(line, at);
    for (i64 p = first; p < first + piece && p < m; p++) {
        i64 to = index[p];
        if ((p > 0 && index[p - 1] == to) || to < 0 || to >= n) continue;
        X* place = y + at[1] + to * y_stride;
        compute_t<X> sum = load(*place);
#pragma unroll 4
        for (i64 q = p; q < m && index[q] == to; q++) sum += load(source[at[0] + from[q] * source_stride]);
        *place = store<X>(sum);
    }
}

#define KERNEL(name, X)                                                                                               \
    extern "C" __global__ void index_add_##name(const i64* index, const i64* from, const X* source, X* y, Layout<2> lines, i64 m, \
                                                i64 n, i64 piece, i64 source_stride, i64 y_stride) {                  \
        index_add<X>(index, from, source, y, lines, m, n, piece, source_stride, y_stride);                            \
    }
KERNEL(f32, f32)
KERNEL(f64, f64)
KERNEL(f16, f16)
KERNEL(bf16, bf16)
KERNEL(i64, u64)
KERNEL(i32, u32)
KERNEL(i8, u8)
KERNEL(u8, u8)
