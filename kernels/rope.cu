// Rotary position embedding (J. Su et al. 2021, arXiv:2104.09864): each pair of features (a, b) of a head is turned by an angle that
// grows with its position,
//
//     a' = a cos θ − b sin θ,    b' = b cos θ + a sin θ;
//
// the gradient is turned back: sin θ is negated.
//
// Bandwidth is the limit: one read and one write of each feature, 16 bytes at a time where they lie in runs. The tables of cos θ and
// sin θ are in f32 twice as large as a head of bf16, so a thread reads its angles once and turns the features that have them, of one
// head and sequence after another.
#include "layout.cuh"

// Of the LENGTH pairs that begin at `x`, half of the features, and the other half `apart` elements on; to `y` likewise. Pairs are of
// one half with the other or, INTERLEAVED, of neighbours.
template <int LENGTH, bool INTERLEAVED, class X, class C = compute_t<X>>
__device__ __forceinline__ void turn(const X* x, i64 x_apart, X* y, i64 y_apart, const Chunk<C, LENGTH>& cos, const Chunk<C, LENGTH>& sin) {
    Chunk<X, LENGTH> in[2] = {read_chunk<LENGTH>(x), read_chunk<LENGTH>(x + x_apart)}, out[2];
#pragma unroll
    for (int j = 0; j < LENGTH; j++) {
        int first = INTERLEAVED ? 2 * j : j, second = INTERLEAVED ? 2 * j + 1 : LENGTH + j;
        C a = load(in[first / LENGTH].at[first % LENGTH]), b = load(in[second / LENGTH].at[second % LENGTH]);
        out[first / LENGTH].at[first % LENGTH] = store<X>(a * cos.at[j] - b * sin.at[j]);
        out[second / LENGTH].at[second % LENGTH] = store<X>(b * cos.at[j] + a * sin.at[j]);
    }
    write_chunk(y, out[0]);
    write_chunk(y + y_apart, out[1]);
}

// `angles` are chunks of pairs of x and y and of their angles; `heads`, what shares them.
template <int LENGTH, bool INTERLEAVED, class X, class C = compute_t<X>>
__device__ __forceinline__ void rope(const X* x, X* y, const C* cos, const C* sin, const Layout<4>& angles, const Layout<2>& heads, i64 x_apart, i64 y_apart, C sign) {
    for (i64 i = thread_in_grid(); i < angles.numel; i += threads_in_grid()) {
        i64 at[4];
        angles.find(i, at);
        Chunk<C, LENGTH> c = read_chunk<LENGTH>(cos + at[2]), s = read_chunk<LENGTH>(sin + at[3]);
#pragma unroll
        for (int j = 0; j < LENGTH; j++) s.at[j] *= sign;
        for (i64 h = blockIdx.y; h < heads.numel; h += gridDim.y) {
            i64 head[2];
            heads.find(h, head);
            turn<LENGTH, INTERLEAVED>(x + at[0] + head[0], x_apart, y + at[1] + head[1], y_apart, c, s);
        }
    }
}

#define KERNEL(name, X, LENGTH, INTERLEAVED)                                                                              \
    extern "C" __global__ void __launch_bounds__(256) name##_##X(                                                         \
        const X* x, X* y, const compute_t<X>* cos, const compute_t<X>* sin, Layout<4> angles, Layout<2> heads,            \
        i64 x_apart, i64 y_apart, f64 sign) {                                                                             \
        rope<LENGTH, INTERLEAVED>(x, y, cos, sin, angles, heads, x_apart, y_apart, compute_t<X>(sign));                   \
    }
#define KERNELS(X)                                              \
    KERNEL(rope, X, 1, false)                                   \
    KERNEL(rope_in_vectors, X, 16 / sizeof(X), false)           \
    KERNEL(rope_interleaved_in_vectors, X, 16 / sizeof(X), true)
KERNELS(f32)
KERNELS(f64)
KERNELS(f16)
KERNELS(bf16)
