// max x and Σ e^{x − max x} over a row: what softmax divides by, without overflow.
#pragma once
#include "rows.cuh"

template <class T> struct Exponentials {
    T max, sum;
};

__device__ __forceinline__ f32 lowest(f32) { return -3.402823466e38f; }
__device__ __forceinline__ f64 lowest(f64) { return -1.7976931348623157e308; }

template <class T> __device__ __forceinline__ Exponentials<T> other_lane(Exponentials<T> e, int bit) {
    return {other_lane(e.max, bit), other_lane(e.sum, bit)};
}

// Sums relative to different maxima, brought to the larger one (M. Milakov, N. Gimelshein 2018, arXiv:1805.02867). Nothing yet has a
// finite maximum, so that −∞ − max is never NaN; +∞ gives ∞ − ∞ = NaN, as it should.
template <class T> struct Together {
    __device__ static __forceinline__ Exponentials<T> identity() { return {lowest(T(0)), T(0)}; }
    __device__ static __forceinline__ Exponentials<T> combine(Exponentials<T> a, Exponentials<T> b) {
        T max = Max<T>::combine(a.max, b.max);
        return {max, a.sum * exp(a.max - max) + b.sum * exp(b.max - max)};
    }
};

// Of a row in registers: two passes.
template <class TEAM, class X, int LENGTH>
__device__ __forceinline__ Exponentials<compute_t<X>> exponentials(InRegisters<TEAM, X, LENGTH, 1>& row) {
    typedef compute_t<X> C;
    C max = row.max();
    return {max, row.sum([&](C x) { return exp(x - max); })};
}

// Of a row in memory: one pass, rescaled chunk by chunk.
template <class TEAM, class X, int LENGTH>
__device__ __forceinline__ Exponentials<compute_t<X>> exponentials(InMemory<TEAM, X, LENGTH, 1>& row) {
    typedef compute_t<X> C;
    Exponentials<C> e = Together<C>::identity();
    row.each([&](i64, const Chunk<X, LENGTH>(&chunks)[1], int) {
        C max = e.max;
#pragma unroll
        for (int j = 0; j < LENGTH; j++) max = Max<C>::combine(max, load(chunks[0].at[j]));
        e.sum *= exp(e.max - max);
        e.max = max;
#pragma unroll
        for (int j = 0; j < LENGTH; j++) e.sum += exp(load(chunks[0].at[j]) - max);
    });
    e = TEAM::template reduce<Together<C>>(e);
    // Nothing but −∞ is −∞ − (−∞), as it is in registers.
    if (e.sum == C(0)) e.sum = smallest_of(C(0)) - smallest_of(C(0));
    return e;
}
