// Convolutions with few channels in a group, depthwise ones above all: as matrix products (conv.cuh) they would fill a column or
// two of a tile. Here a thread makes one number of Y, a block one of dW. K has the order (c, a, b).
//
// Bandwidth is the limit: a number is read once for each tap, but from the caches, where neighbours' windows overlap.
#include "conv.cuh"
#include "reduction.cuh"

// Y = W · X̂ + bias, W row-major.
template <class T, class C = compute_t<T>>
__device__ __forceinline__ void conv(const T* w, const T* x, const T* bias, T* y, const Shape& s, const Patches& p, const Image& to) {
    i32 width = (i32)p.kernel_width.d, height = (i32)p.kernel_width.quotient(p.taps.d);
    for (i64 o = blockIdx.y; o < s.batches * s.m; o += gridDim.y)
        for (i64 pixel = thread_in_grid(); pixel < s.n; pixel += threads_in_grid()) {
            Window window(p, pixel, true);
            const T* channel = x + window.n * p.x.image + o / s.m * p.channels * p.x.channel;
            const T* weight = w + o * s.k;
            C sum = C(0);
            for (i32 c = 0; c < p.channels; c++, channel += p.x.channel)
                for (i32 a = 0; a < height; a++)
                    for (i32 b = 0; b < width; b++, weight++) {
                        Seen seen(p, window, Tap{a * p.tap[0], b * p.tap[1]});
                        if (seen.inside) sum += load(*weight) * load(channel[seen.offset]);
                    }
            y[place_of(to, p.plane, p.width, (u32)pixel) + o * to.channel] = store<T>(bias ? sum + load(bias[o]) : sum);
        }
}

// A part of a number of dW = dY · X̂ᵀ, not rounded: K are the pixels.
template <class T, class C = compute_t<T>>
__device__ __forceinline__ void weight_grad(const T* dy, const T* x, C* parts, const Shape& s, const Patches& p, const Image& from) {
    u32 o = blockIdx.x / (u32)s.n, k = blockIdx.x % (u32)s.n, c = p.taps.quotient(k);
    Tap tap(p, k - c * p.taps.d);
    x += (o / s.m * p.channels + c) * p.x.channel;
    dy += o * from.channel;
    Part part(s, blockIdx.y);
    C sum = C(0);
    for (int i = threadIdx.x; i < part.depth; i += blockDim.x) {
        u32 pixel = (u32)part.start + i;
        Window window(p, pixel, true);
        Seen seen(p, window, tap);
        if (seen.inside) sum += load(dy[place_of(from, p.plane, p.width, pixel)]) * load(x[window.n * p.x.image + seen.offset]);
    }
    sum = block_reduce<Sum<C>>(sum);
    if (threadIdx.x == 0) parts[(i64)blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

#define KERNELS(T)                                                                                                                       \
    extern "C" __global__ void conv_##T(const T* w, const T* x, const T* bias, T* y, Shape s, Patches p, Image to) {                     \
        conv(w, x, bias, y, s, p, to);                                                                                                   \
    }                                                                                                                                    \
    extern "C" __global__ void weight_grad_##T(const T* dy, const T* x, compute_t<T>* parts, Shape s, Patches p, Image from) {           \
        weight_grad(dy, x, parts, s, p, from);                                                                                           \
    }
KERNELS(f32)
KERNELS(f64)
KERNELS(f16)
KERNELS(bf16)
