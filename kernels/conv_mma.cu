// Convolutions on tensor cores (conv.cuh): 16-bit numbers, -DTYPE=bf16 or -DTYPE=f16, and f32 sums.
//
// Asynchronous copies move 4 bytes at least, 16 at best, and a window of an image [N, C, H, W] begins anywhere. So the operands lie
// with their channels last, [N, H, W, C], a multiple of 8 of them in each group (channels_last.cu brings them there): what a tap
// sees at a pixel is a run of aligned chunks, all of which are inside of the image or none. K has the order (a, b, c).
//
// The tiles, and how the copies overlap with the products, are those of matmul_mma.cuh.
#include "conv.cuh"
#include "matmul_mma.cuh"

// The way of X̂ into shared memory: the lines of a slice are pixels, and run along the channels of a tap.
template <int ROWS, int THREADS> struct PatchFeed {
    typedef Slice<T, ROWS, true> S;
    static constexpr int LINES = THREADS / S::CHUNKS, PASSES = S::LINES / LINES;
    static_assert(LINES % 8 == 0, "each pass swaps the same chunks");
    const T* images[PASSES];
    Window windows[PASSES];
    const Patches& p;
    int to, first, k;

    // From pixel `start` on.
    __device__ __forceinline__ PatchFeed(const T* x, const Patches& p, i64 start, i64 pixels) : p(p) {
        int line = threadIdx.x / S::CHUNKS;
        first = threadIdx.x % S::CHUNKS * CHUNK, k = first;
        to = S::offset(line, first / CHUNK);
        for (int pass = 0; pass < PASSES; pass++) {
            i64 pixel = start + line + pass * LINES;
            windows[pass] = Window(p, (u32)pixel, pixel < pixels);
            images[pass] = x + windows[pass].n * p.x.image;
        }
    }
    __device__ __forceinline__ void copy(T* slice, int depth) {
        u32 at = p.depth.quotient(k), c = k - at * p.depth.d;
        Tap tap(p, at);
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++) {
            Seen seen(p, windows[pass], tap);
            cp_async_16(slice + to + pass * LINES * S::LINE, images[pass] + seen.offset + c, seen.inside && first < depth ? 16 : 0);
        }
        k += DEPTH;
    }
};

// The way of X̂ᵀ: the lines are pixels as well, which are along K now, and run along the rows (a, b, c), of which a thread has a chunk.
template <int ROWS, int THREADS> struct TransposedPatchFeed {
    typedef Slice<T, ROWS, false> S;
    static constexpr int LINES = THREADS / S::CHUNKS, PASSES = S::LINES / LINES;
    static_assert(LINES % 8 == 0, "each pass swaps the same chunks");
    const T* x;
    const Patches& p;
    Tap tap;
    bool there;
    int to, line;
    u32 pixel;

    // Of the rows from `first` on there are `all`.
    __device__ __forceinline__ TransposedPatchFeed(const T* x, const Patches& p, u32 first, i64 all, i64 start) : p(p) {
        int place = threadIdx.x % S::CHUNKS * CHUNK;
        line = threadIdx.x / S::CHUNKS, pixel = (u32)start + line;
        to = S::offset(line, place / CHUNK), there = place < all;
        u32 at = p.depth.quotient(first + place);
        tap = Tap(p, at);
        this->x = x + (first + place - at * p.depth.d);
    }
    __device__ __forceinline__ void copy(T* slice, int depth) {
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++) {
            Window window(p, pixel + pass * LINES, line + pass * LINES < depth);
            Seen seen(p, window, tap);
            cp_async_16(slice + to + pass * LINES * S::LINE, x + window.n * p.x.image + seen.offset, seen.inside && there ? 16 : 0);
        }
        pixel += DEPTH;
    }
};

// A block that makes a tile of Y, or of dW.
template <int ROWS, int COLUMNS, int WARP_ROWS, int WARP_COLUMNS> struct Conv {
    typedef ::Block<ROWS, COLUMNS, WARP_ROWS, WARP_COLUMNS, true, true> Forward;
    typedef ::Block<ROWS, COLUMNS, WARP_ROWS, WARP_COLUMNS, false, false> Gradient;
    static constexpr int THREADS = Forward::THREADS;

    __device__ static __forceinline__ void add_bias(typename Forward::Sums& d, const T* bias, i64 channels, const Place& at) {
#pragma unroll
        for (int i = 0; i < 2 * Forward::A_FRAGMENTS; i++) {
            i64 o = (i64)at.row + Forward::first_row() + i * 8 + lane_id() / 4;
            f32 b = o < channels ? load(bias[at.matrix * channels + o]) : 0;
#pragma unroll
            for (int j = 0; j < 2 * Forward::B_FRAGMENTS; j++)
                for (int e = 0; e < 2; e++) d[i / 2][j][i % 2 * 2 + e] += b;
        }
    }

    // A tile in shared memory to its pixels. `whole`: eight of them that begin at a multiple of eight lie side by side at one of 16 bytes.
    __device__ static __forceinline__ void store(T* y, const T* tile, const Shape& s, const Place& at, const Patches& p, const Image& to, bool whole) {
        constexpr int CHUNKS = COLUMNS / CHUNK;
        for (int t = threadIdx.x; t < ROWS * CHUNKS; t += THREADS) {
            i64 o = (i64)at.row + t / CHUNKS, pixel = (i64)at.column + t % CHUNKS * CHUNK;
            if (o >= s.m) break;
            const T* chunk = tile + Forward::offset(t / CHUNKS, t % CHUNKS);
            T* channel = y + (at.matrix * s.m + o) * to.channel;
            if (whole && pixel < s.n)
                *reinterpret_cast<Vector<T>*>(channel + place_of(to, p.plane, p.width, (u32)pixel)) = *reinterpret_cast<const Vector<T>*>(chunk);
            else
                for (int e = 0; e < CHUNK && pixel + e < s.n; e++) channel[place_of(to, p.plane, p.width, (u32)(pixel + e))] = chunk[e];
        }
    }

    // Y = W · X̂ + bias, W row-major.
    __device__ static __forceinline__ void forward(const T* w, const T* x, const T* bias, T* y, const Shape& s, const Patches& p, const Image& to, bool whole) {
        DYNAMIC_SHARED(T, ring);
        Place at = place<ROWS, COLUMNS>(s, blockIdx.x);
        Feed<ROWS, true, true, THREADS> feed_w(w + ((i64)at.matrix * s.m + at.row) * s.k, s.k, s.m - at.row);
        PatchFeed<COLUMNS, THREADS> feed_x(x + at.matrix * p.depth.d, p, at.column, s.n);
        typename Forward::Sums d = {};
        Forward::product(d, ring, feed_w, feed_x, (int)s.k);
        if (bias) add_bias(d, bias, s.m, at);
        __syncthreads();
        Forward::round(ring, d, nullptr, s, at);
        __syncthreads();
        store(y, ring, s, at, p, to, whole);
    }

    // A part of dW = dY · X̂ᵀ, not rounded: K are the pixels. Those of dY are `pitch` apart.
    __device__ static __forceinline__ void weight_grad(const T* dy, const T* x, f32* parts, const Shape& s, const Patches& p, i64 pitch, i64 group) {
        DYNAMIC_SHARED(T, ring);
        Place at = place<ROWS, COLUMNS>(s, blockIdx.x);
        Part part(s, blockIdx.y);
        Feed<ROWS, false, true, THREADS> feed_dy(dy + part.start * pitch + at.matrix * group + at.row, pitch, s.m - at.row);
        TransposedPatchFeed<COLUMNS, THREADS> feed_x(x + at.matrix * p.depth.d, p, at.column, s.n - at.column, part.start);
        typename Gradient::Sums d = {};
        Gradient::product(d, ring, feed_dy, feed_x, part.depth);
        Gradient::store_sums(parts + blockIdx.y * s.batches * s.m * s.n, d, s, at);
    }
};

#define KERNELS(name, ROWS, WARP_ROWS, WARP_COLUMNS, THREADS, BLOCKS)                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                     \
        conv_##name(const T* w, const T* x, const T* bias, T* y, Shape s, Patches p, Image to, i32 whole) {           \
        Conv<ROWS, ROWS, WARP_ROWS, WARP_COLUMNS>::forward(w, x, bias, y, s, p, to, whole);                           \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                     \
        weight_grad_##name(const T* dy, const T* x, f32* parts, Shape s, Patches p, i64 pitch, i64 group) {           \
        Conv<ROWS, ROWS, WARP_ROWS, WARP_COLUMNS>::weight_grad(dy, x, parts, s, p, pitch, group);                     \
    }
KERNELS(large, 128, 64, 32, 256, 2)
KERNELS(small, 64, 32, 32, 128, 4)
