// Gated activations (N. Shazeer 2020, arXiv:2002.05202): y = f(gate) · up, and both gradients from g,
//
//     dgate = g · up · f'(gate),    dup = g · f(gate).
//
// One program for each f: -DFUNCTION=silu, -DDERIVATIVE=silu_grad, the function of functions.cuh that multiplies a gradient by f', and
// -DAT=x, what it takes: the gate, or y = f(gate).
//
// Bandwidth is the limit: each operand is read once, 16 bytes at a time where rows are runs of memory, as the halves of one product
// are, and both gradients are written in the same pass.
#include "functions.cuh"
#include "layout.cuh"

template <int LENGTH, class X, class C = compute_t<X>>
__device__ __forceinline__ void gated(const X* gate, const X* up, X* out, const Layout<3>& chunks) {
    for (i64 i = thread_in_grid(); i < chunks.numel; i += threads_in_grid()) {
        i64 at[3];
        chunks.find(i, at);
        Chunk<X, LENGTH> gates = read_chunk<LENGTH>(gate + at[0]), ups = read_chunk<LENGTH>(up + at[1]), outs;
#pragma unroll
        for (int j = 0; j < LENGTH; j++) outs.at[j] = store<X>(FUNCTION<C>(load(gates.at[j]), Scalars{}) * load(ups.at[j]));
        write_chunk(out + at[2], outs);
    }
}

template <int LENGTH, class X, class C = compute_t<X>>
__device__ __forceinline__ void gated_backward(const X* gate, const X* up, const X* g, X* dgate, X* dup, const Layout<5>& chunks) {
    for (i64 i = thread_in_grid(); i < chunks.numel; i += threads_in_grid()) {
        i64 at[5];
        chunks.find(i, at);
        Chunk<X, LENGTH> gates = read_chunk<LENGTH>(gate + at[0]), ups = read_chunk<LENGTH>(up + at[1]), gs = read_chunk<LENGTH>(g + at[2]);
#pragma unroll
        for (int j = 0; j < LENGTH; j++) {
            C x = load(gates.at[j]), y = FUNCTION<C>(x, Scalars{}), grad = load(gs.at[j]);
            gates.at[j] = store<X>(DERIVATIVE<C>(AT, grad * load(ups.at[j])));
            ups.at[j] = store<X>(grad * y);
        }
        write_chunk(dgate + at[3], gates);
        write_chunk(dup + at[4], ups);
    }
}

#define KERNEL(X, suffix, LENGTH)                                                                                       \
    extern "C" __global__ void gated##suffix##_##X(const X* gate, const X* up, X* out, Layout<3> chunks) {              \
        gated<LENGTH>(gate, up, out, chunks);                                                                           \
    }                                                                                                                   \
    extern "C" __global__ void gated_backward##suffix##_##X(                                                            \
        const X* gate, const X* up, const X* g, X* dgate, X* dup, Layout<5> chunks) {                                   \
        gated_backward<LENGTH>(gate, up, g, dgate, dup, chunks);                                                        \
    }
#define KERNELS(X)                                  \
    KERNEL(X, , 1)                                  \
    KERNEL(X, _in_vectors, 16 / sizeof(X))
KERNELS(f32)
KERNELS(f64)
KERNELS(f16)
KERNELS(bf16)
