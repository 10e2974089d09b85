// What becomes of the sums of a matrix product before they are rounded (its epilogue), the same for all kernels: forward
//
//     y = f(z) + residual,    z = sum + bias,
//
// f an activation, of which z is kept for the backward pass if there is somewhere to keep it; and backward, where the sums are the
// gradient of f(z),
//
//     y = sum · f'(z).
//
// Alone, either would read and write all of memory once more. f is chosen at run time: a program for each would be compiled for each.
#pragma once
#include "functions.cuh"

// Numbered as in crates/cuda/src/ops/matmul.rs.
enum Activation { NONE, RELU, GELU, GELU_TANH, SILU };

// f(z)
template <class A> __device__ __forceinline__ A activate(i32 f, A z) {
    switch (f) {
        case RELU: return relu(z, Scalars{});
        case GELU: return gelu(z, Scalars{});
        case GELU_TANH: return gelu_tanh(z, Scalars{});
        case SILU: return silu(z, Scalars{});
        default: return z;
    }
}

// f'(z) · g
template <class A> __device__ __forceinline__ A activate_grad(i32 f, A z, A g) {
    switch (f) {
        case RELU: return relu_grad(z, g);
        case GELU: return gelu_grad(z, g);
        case GELU_TANH: return gelu_tanh_grad(z, g);
        case SILU: return silu_grad(z, g);
        default: return g;
    }
}

// Neighbours in a row, moved at once.
template <class T, int N> struct alignas(N * sizeof(T)) Neighbours { T at[N]; };

// What is not there is null; all but the bias [N] have the shape of C, row-major.
template <class T> struct Epilogue {
    const T *bias, *residual;
    // z: of a backward pass, and where a forward pass keeps it.
    const T* slope_at;
    T* keep;
    i32 activation;

    __device__ __forceinline__ bool is_bias() const { return !residual && !slope_at && !keep && activation == NONE; }

    // Elements i, i + 1, … of C, in columns x, x + 1, …, from their sums; i is a multiple of N.
    template <int N> __device__ __forceinline__ void finish(T* c, compute_t<T> (&sums)[N], i64 i, i64 x) const {
        typedef Neighbours<T, N> Group;
        Group group;
        if (bias)
            for (int n = 0; n < N; n++) sums[n] += load(bias[x + n]);
        if (slope_at) {
            group = *reinterpret_cast<const Group*>(slope_at + i);
            for (int n = 0; n < N; n++) sums[n] = activate_grad(activation, load(group.at[n]), sums[n]);
        } else {
            if (keep) *reinterpret_cast<Group*>(keep + i) = rounded(sums);
            for (int n = 0; n < N; n++) sums[n] = activate(activation, sums[n]);
        }
        if (residual) {
            group = *reinterpret_cast<const Group*>(residual + i);
            for (int n = 0; n < N; n++) sums[n] += load(group.at[n]);
        }
        *reinterpret_cast<Group*>(c + i) = rounded(sums);
    }

    template <int N> __device__ static __forceinline__ Neighbours<T, N> rounded(const compute_t<T> (&sums)[N]) {
        Neighbours<T, N> group;
        for (int n = 0; n < N; n++) group.at[n] = store<T>(sums[n]);
        return group;
    }
};
