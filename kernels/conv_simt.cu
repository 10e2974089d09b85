// Convolutions in f32 and f64 without tensor cores (conv.cuh), K in the order (c, a, b): every product and sum is of the full
// type. For images of any strides; each number is copied by itself.
//
// The tiles are those of matmul_simt.cuh. Neighbouring threads copy neighbouring pixels, which mostly lie side by side.
#include "conv.cuh"
#include "matmul_simt.cuh"

// The way of X̂ into shared memory with pixels for rows: a thread has one pixel and goes along K.
template <class T, int ROWS> struct PatchFeed {
    static constexpr int PASSES = ROWS * DEPTH / THREADS, STEP = THREADS / ROWS;
    const T* x;
    const Patches& p;
    Window window;
    int row, first, k;

    __device__ __forceinline__ PatchFeed(const T* x, const Patches& p, i64 start, i64 pixels) : x(x), p(p) {
        row = threadIdx.x % ROWS, first = threadIdx.x / ROWS, k = first;
        window = Window(p, (u32)(start + row), start + row < pixels);
        this->x += window.n * p.x.image;
    }
    __device__ __forceinline__ void copy(Slice<T, ROWS>& slice, int depth) {
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++) {
            u32 at = k + pass * STEP, c = p.taps.quotient(at);
            Seen seen(p, window, Tap(p, at - c * p.taps.d));
            copy_one(&slice.at[first + pass * STEP][row], x + seen.offset + c * p.x.channel, seen.inside && first + pass * STEP < depth);
        }
        k += DEPTH;
    }
};

// The way of X̂ᵀ, with pixels along K: a thread has some rows (c, a, b) and goes from pixel to pixel.
template <class T, int ROWS> struct TransposedPatchFeed {
    static constexpr int STEP = THREADS / DEPTH, PASSES = ROWS / STEP;
    const T* x;
    const Patches& p;
    int row, place, rows;
    u32 k, pixel;

    // Of the rows from `first` on there are `all`.
    __device__ __forceinline__ TransposedPatchFeed(const T* x, const Patches& p, u32 first, i64 all, i64 start) : x(x), p(p) {
        place = threadIdx.x % DEPTH, row = threadIdx.x / DEPTH, k = first + row, pixel = (u32)start + place;
        rows = (all < ROWS ? (int)all : ROWS) - row;
    }
    __device__ __forceinline__ void copy(Slice<T, ROWS>& slice, int depth) {
        Window window(p, pixel, place < depth);
        const T* image = x + window.n * p.x.image;
// A row's tap is found anew for each slice: registers are short, and divisions by multiplication are not.
#pragma unroll 1
        for (int pass = 0; pass < PASSES; pass++) {
            u32 at = k + pass * STEP, c = p.taps.quotient(at);
            Seen seen(p, window, Tap(p, at - c * p.taps.d));
            copy_one(&slice.at[place][row + pass * STEP], image + seen.offset + c * p.x.channel, seen.inside && pass * STEP < rows);
        }
        pixel += DEPTH;
    }
};

// The way of dY, with pixels along K: its rows are channels.
template <class T, int ROWS> struct PixelFeed {
    static constexpr int STEP = THREADS / DEPTH, PASSES = ROWS / STEP;
    const T* dy;
    const Image& at;
    const Patches& p;
    int row, place, rows;
    u32 pixel;

    __device__ __forceinline__ PixelFeed(const T* dy, const Image& at, const Patches& p, i64 all, i64 start) : dy(dy), at(at), p(p) {
        place = threadIdx.x % DEPTH, row = threadIdx.x / DEPTH, pixel = (u32)start + place;
        rows = (all < ROWS ? (int)all : ROWS) - row;
    }
    __device__ __forceinline__ void copy(Slice<T, ROWS>& slice, int depth) {
        const T* from = dy + place_of(at, p.plane, p.width, pixel) + row * at.channel;
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++)
            copy_one(&slice.at[place][row + pass * STEP], from + pass * STEP * at.channel, pass * STEP < rows && place < depth);
        pixel += DEPTH;
    }
};

// A thread's sums to the channels of its pixels.
template <class T, int EACH>
__device__ __forceinline__ void store(T* y, const T (&sums)[EACH][EACH], const T* bias, const Shape& s, const Place& at, const Patches& p, const Image& to) {
    typedef Block<T, EACH> Block;
    i64 first = (i64)at.row + Block::row(), channel = at.matrix * s.m + first;
    y += channel * to.channel;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        i64 pixel = (i64)at.column + Block::column() + Block::step(j, 8);
        if (pixel >= s.n) continue;
        T* line = y + place_of(to, p.plane, p.width, (u32)pixel);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int o = Block::step(i, 4);
            if (first + o < s.m) *line = bias ? sums[i][j] + bias[channel + o] : sums[i][j];
            line += (Block::step(i + 1, 4) - o) * to.channel;
        }
    }
}

// Y = W · X̂ + bias, W row-major.
template <class T, int EACH>
__device__ __forceinline__ void conv(const T* w, const T* x, const T* bias, T* y, const Shape& s, const Patches& p, const Image& to) {
    typedef Block<T, EACH> Block;
    Place at = place<Block::TILE, Block::TILE>(s, blockIdx.x);
    Feed<T, Block::TILE> feed_w(w + ((i64)at.matrix * s.m + at.row) * s.k, s.k, 1, s.m - at.row);
    PatchFeed<T, Block::TILE> feed_x(x + at.matrix * p.channels * p.x.channel, p, at.column, s.n);
    typename Block::Sums sums = {};
    Block::product(sums, feed_w, feed_x, (int)s.k);
    store(y, sums, bias, s, at, p, to);
}

// A part of dW = dY · X̂ᵀ: K are the pixels.
template <class T, int EACH>
__device__ __forceinline__ void weight_grad(const T* dy, const T* x, T* parts, const Shape& s, const Patches& p, const Image& from) {
    typedef Block<T, EACH> Block;
    Place at = place<Block::TILE, Block::TILE>(s, blockIdx.x);
    Part part(s, blockIdx.y);
    const T* rows = dy + ((i64)at.matrix * s.m + at.row) * from.channel;
    PixelFeed<T, Block::TILE> feed_dy(rows, from, p, s.m - at.row, part.start);
    TransposedPatchFeed<T, Block::TILE> feed_x(x + at.matrix * p.channels * p.x.channel, p, at.column, s.n - at.column, part.start);
    typename Block::Sums sums = {};
    Block::product(sums, feed_dy, feed_x, part.depth);
    Block::store(parts + blockIdx.y * s.batches * s.m * s.n, sums, nullptr, s, at);
}

#define KERNELS(name, T, EACH)                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                              \
        conv_##name(const T* w, const T* x, const T* bias, T* y, Shape s, Patches p, Image to) {          \
        conv<T, EACH>(w, x, bias, y, s, p, to);                                                           \
    }                                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                              \
        weight_grad_##name(const T* dy, const T* x, T* parts, Shape s, Patches p, Image from) {           \
        weight_grad<T, EACH>(dy, x, parts, s, p, from);                                                   \
    }
KERNELS(large_f32, f32, 8)
KERNELS(small_f32, f32, 4)
KERNELS(small_f64, f64, 4)
