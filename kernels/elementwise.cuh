// Every element by itself: y = f(x), y = f(a, b), y = f(a, b, c), for operands of any strides; `y` is row-major.
//
// Bandwidth is the limit. Where all operands are runs of memory, a thread moves 16 bytes of the result at once; elsewhere it finds
// each element by its index.
#pragma once
#include "layout.cuh"

// Elements that a thread does together: 16 bytes of the widest operand would leave the narrow ones short of one transaction
// each, so it is 16 bytes of the result.
template <class Y, class F, class X>
__device__ __forceinline__ void map1(const X* x, Y* y, const Layout<2>& at, F f) {
    constexpr int LENGTH = 16 / (sizeof(X) > sizeof(Y) ? sizeof(X) : sizeof(Y));
    struct alignas(LENGTH * sizeof(X)) Xs { X at[LENGTH]; };
    struct alignas(LENGTH * sizeof(Y)) Ys { Y at[LENGTH]; };
    i64 first = thread_in_grid(), step = threads_in_grid(), whole = at.vectors ? at.numel / LENGTH : 0;
    for (i64 i = first; i < whole; i += step) {
        Xs xs = ((const Xs*)x)[i];
        Ys ys;
        for (int j = 0; j < LENGTH; j++) ys.at[j] = f(xs.at[j]);
        ((Ys*)y)[i] = ys;
    }
    for (i64 i = whole * LENGTH + first; i < at.numel; i += step) {
        i64 from[2];
        at.find(i, from);
        y[from[1]] = f(x[from[0]]);
    }
}

template <class Y, class F, class A, class B>
__device__ __forceinline__ void map2(const A* a, const B* b, Y* y, const Layout<3>& at, F f) {
    constexpr int LENGTH = 16 / (sizeof(A) > sizeof(Y) ? sizeof(A) : sizeof(Y));
    struct alignas(LENGTH * sizeof(A)) As { A at[LENGTH]; };
    struct alignas(LENGTH * sizeof(B)) Bs { B at[LENGTH]; };
    struct alignas(LENGTH * sizeof(Y)) Ys { Y at[LENGTH]; };
    i64 first = thread_in_grid(), step = threads_in_grid(), whole = at.vectors ? at.numel / LENGTH : 0;
    for (i64 i = first; i < whole; i += step) {
        As as = ((const As*)a)[i];
        Bs bs = ((const Bs*)b)[i];
        Ys ys;
        for (int j = 0; j < LENGTH; j++) ys.at[j] = f(as.at[j], bs.at[j]);
        ((Ys*)y)[i] = ys;
    }
    for (i64 i = whole * LENGTH + first; i < at.numel; i += step) {
        i64 from[3];
        at.find(i, from);
        y[from[2]] = f(a[from[0]], b[from[1]]);
    }
}

template <class Y, class F, class A, class B, class C>
__device__ __forceinline__ void map3(const A* a, const B* b, const C* c, Y* y, const Layout<4>& at, F f) {
    for (i64 i = thread_in_grid(); i < at.numel; i += threads_in_grid()) {
        i64 from[4];
        at.find(i, from);
        y[from[3]] = f(a[from[0]], b[from[1]], c[from[2]]);
    }
}
