// y = x between any strides, in elements of 1, 2, 4 and 8 bytes.
#include "elementwise.cuh"

constexpr int THREADS = 256;

// Where x's runs lie across y's: x[c · x_pitch + r] goes to y[r · y_pitch + c].
struct Plane { i64 rows, columns, x_pitch, y_pitch; };

// Read along the one's runs and written along the other's, neighbours would be far apart in one of them, and every number would cost a
// transaction of 32 bytes. So a block reads a square along x's runs into shared memory, and writes it along y's. Lines of the square are a
// word longer than it is wide, so that those of a column lie in different banks.
template <class T>
__device__ __forceinline__ void transpose(const T* x, T* y, const Plane& plane, const Layout<2>& batch) {
    constexpr int SIDE = sizeof(T) < 4 ? 64 : 32, WORD = sizeof(T) < 4 ? 4 / sizeof(T) : 1, STEP = THREADS / SIDE;
    __shared__ T square[SIDE][SIDE + WORD];
    // Memory is full before there are more squares than 32 bits can count.
    u32 down = (u32)((plane.rows + SIDE - 1) / SIDE), across = (u32)((plane.columns + SIDE - 1) / SIDE);
    u32 count = down * across * (u32)batch.numel, lane = threadIdx.x % SIDE, first = threadIdx.x / SIDE;
    for (u32 tile = blockIdx.x; tile < count; tile += gridDim.x) {
        i64 at[2], row = (i64)(tile / across % down) * SIDE, column = (i64)(tile % across) * SIDE;
        batch.find_near(tile / across / down, at);
        T kept[SIDE / STEP];
#pragma unroll
        for (int i = 0; i < SIDE / STEP; i++) {
            i64 c = column + first + i * STEP;
            if (row + lane < plane.rows && c < plane.columns) kept[i] = x[at[0] + c * plane.x_pitch + row + lane];
        }
#pragma unroll
        for (int i = 0; i < SIDE / STEP; i++) square[first + i * STEP][lane] = kept[i];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < SIDE / STEP; i++) {
            i64 r = row + first + i * STEP;
            if (r < plane.rows && column + lane < plane.columns) y[at[1] + r * plane.y_pitch + column + lane] = square[lane][first + i * STEP];
        }
        __syncthreads();
    }
}

#define COPY(name, T)                                                                                                        \
    extern "C" __global__ void name(const T* x, T* y, Layout<2> at) { map1<T>(x, y, at, [](T x) { return x; }); }
#define TRANSPOSE(name, T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS) name(const T* x, T* y, Plane plane, Layout<2> batch) { transpose(x, y, plane, batch); }
COPY(copy_u8, u8)
COPY(copy_f16, u16)
COPY(copy_i32, u32)
COPY(copy_i64, u64)
TRANSPOSE(transpose_u8, u8)
TRANSPOSE(transpose_f16, u16)
TRANSPOSE(transpose_i32, u32)
TRANSPOSE(transpose_i64, u64)
