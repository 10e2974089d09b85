// Tensors one after another along a dimension, in units of 1 to 16 bytes. Seen as rows, from the dimension on, a row of y is the
// operands' rows one after another.
//
// Bandwidth is the limit: the units are as large as all widths and addresses allow, and each is read and written once.
#include "layout.cuh"

// As many as fit one launch; `crates/cuda/src/ops/cat.rs` fills it in.
constexpr int OPERANDS = 16;
struct Joined {
    const void* from[OPERANDS];
    // Where each begins in a row of y; after the last, where it ends.
    i64 starts[OPERANDS + 1];
    i64 count, rows, row;
};

struct alignas(16) u128 { u64 at[2]; };

template <class T> __device__ __forceinline__ void cat(T* y, const Joined& joined) {
    i64 width = joined.starts[joined.count] - joined.starts[0];
    for (i64 o = thread_in_grid(); o < joined.rows * width; o += threads_in_grid()) {
        i64 r = joined.rows * width <= 0xffffffffll ? (u32)o / (u32)width : o / width;
        i64 column = joined.starts[0] + o - r * width;
        int k = 0;
        while (column >= joined.starts[k + 1]) k++;
        i64 start = joined.starts[k];
        y[r * joined.row + column] = ((const T*)joined.from[k])[r * (joined.starts[k + 1] - start) + column - start];
    }
}

#define KERNEL(name, T) \
    extern "C" __global__ void name(T* y, Joined joined) { cat<T>(y, joined); }
KERNEL(units_of_1, u8)
KERNEL(units_of_2, u16)
KERNEL(units_of_4, u32)
KERNEL(units_of_8, u64)
KERNEL(units_of_16, u128)
