// y = x between any strides, in elements of 1, 2, 4 and 8 bytes.
#include "elementwise.cuh"

// Where x's runs lie across y's: x[c · x_pitch + r] goes to y[r · y_pitch + c].
struct Plane { i64 rows, columns, x_pitch, y_pitch; };

// Read along the one's runs and written along the other's, neighbours would be far apart in one of them, and every number would cost a
// transaction of 32 bytes. So a block reads a square along x's runs into shared memory, and writes it along y's. Its lines are one number
// longer than the square, so that those of a column lie in different banks.
template <class T>
__device__ __forceinline__ void transpose(const T* x, T* y, const Plane& plane, const Layout<2>& batch) {
    constexpr int SIDE = 32;
    __shared__ T square[SIDE][SIDE + 1];
    i64 down = (plane.rows + SIDE - 1) / SIDE, across = (plane.columns + SIDE - 1) / SIDE, count = down * across * batch.numel;
    int lane = threadIdx.x % SIDE, first = threadIdx.x / SIDE, step = blockDim.x / SIDE;
    for (i64 tile = blockIdx.x; tile < count; tile += gridDim.x) {
        i64 at[2], row = tile / across % down * SIDE, column = tile % across * SIDE;
        batch.find(tile / across / down, at);
        for (int i = first; i < SIDE; i += step)
            if (row + lane < plane.rows && column + i < plane.columns)
                square[i][lane] = x[at[0] + (column + i) * plane.x_pitch + row + lane];
        __syncthreads();
        for (int i = first; i < SIDE; i += step)
            if (row + i < plane.rows && column + lane < plane.columns)
                y[at[1] + (row + i) * plane.y_pitch + column + lane] = square[lane][i];
        __syncthreads();
    }
}

#define COPY(name, T)                                                                                                        \
    extern "C" __global__ void name(const T* x, T* y, Layout<2> at) { map1<T>(x, y, at, [](T x) { return x; }); }
#define TRANSPOSE(name, T)                                                                                                   \
    extern "C" __global__ void name(const T* x, T* y, Plane plane, Layout<2> batch) { transpose(x, y, plane, batch); }
COPY(copy_u8, u8)
COPY(copy_f16, u16)
COPY(copy_i32, u32)
COPY(copy_i64, u64)
TRANSPOSE(transpose_u8, u8)
TRANSPOSE(transpose_f16, u16)
TRANSPOSE(transpose_i32, u32)
TRANSPOSE(transpose_i64, u64)
