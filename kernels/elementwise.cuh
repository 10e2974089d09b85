// Every element by itself: y = f(x), y = f(a, b), y = f(a, b, c), for operands of any strides.
//
// Bandwidth is the limit. Where rows of all operands lie in whole chunks, or are one number again and again, a thread moves 16 bytes of
// the widest operand at once; elsewhere it finds each element by its index.
#pragma once
#include "layout.cuh"

// Calls `chunk` with the places of LENGTH elements that are done together, and `element` with those of each that is left.
template <int LENGTH, int N, class CHUNK, class ELEMENT>
__device__ __forceinline__ void for_each_place(const Layout<N>& at, CHUNK chunk, ELEMENT element) {
    i64 whole = at.placement == APART ? 0 : at.numel / LENGTH, left = at.numel - whole * LENGTH;
    for (i64 turn = thread_in_grid(); turn < whole + left; turn += threads_in_grid()) {
        i64 i = turn < whole ? turn * LENGTH : at.numel - (whole + left - turn), places[N];
        for (int n = 0; n < N; n++) places[n] = i;
        if (at.placement != IN_A_RUN) at.find(i, places);
        turn < whole ? chunk(places) : element(places);
    }
}

// Of operand `n`: a chunk, or one number again and again.
template <int LENGTH, int N, class X>
__device__ __forceinline__ Chunk<X, LENGTH> read(const X* x, const Layout<N>& at, int n, const i64 (&places)[N]) {
    if (at.strides[n][at.rank - 1] != 0) return read_chunk<LENGTH>(x + places[n]);
    Chunk<X, LENGTH> same;
    for (int j = 0; j < LENGTH; j++) same.at[j] = x[places[n]];
    return same;
}

__device__ constexpr int widest(int a, int b) { return a > b ? a : b; }

template <class Y, class F, class X>
__device__ __forceinline__ void map1(const X* x, Y* y, const Layout<2>& at, F f) {
    constexpr int LENGTH = 16 / widest(sizeof(X), sizeof(Y));
    auto chunk = [&](const i64 (&i)[2]) {
        Chunk<X, LENGTH> xs = read<LENGTH>(x, at, 0, i);
        Chunk<Y, LENGTH> ys;
        for (int j = 0; j < LENGTH; j++) ys.at[j] = f(xs.at[j]);
        write_chunk(y + i[1], ys);
    };
    for_each_place<LENGTH>(at, chunk, [&](const i64 (&i)[2]) { y[i[1]] = f(x[i[0]]); });
}

template <class Y, class F, class A, class B>
__device__ __forceinline__ void map2(const A* a, const B* b, Y* y, const Layout<3>& at, F f) {
    constexpr int LENGTH = 16 / widest(widest(sizeof(A), sizeof(B)), sizeof(Y));
    auto chunk = [&](const i64 (&i)[3]) {
        Chunk<A, LENGTH> as = read<LENGTH>(a, at, 0, i);
        Chunk<B, LENGTH> bs = read<LENGTH>(b, at, 1, i);
        Chunk<Y, LENGTH> ys;
        for (int j = 0; j < LENGTH; j++) ys.at[j] = f(as.at[j], bs.at[j]);
        write_chunk(y + i[2], ys);
    };
    for_each_place<LENGTH>(at, chunk, [&](const i64 (&i)[3]) { y[i[2]] = f(a[i[0]], b[i[1]]); });
}

template <class Y, class F, class A, class B, class C>
__device__ __forceinline__ void map3(const A* a, const B* b, const C* c, Y* y, const Layout<4>& at, F f) {
    constexpr int LENGTH = 16 / widest(widest(sizeof(A), sizeof(B)), widest(sizeof(C), sizeof(Y)));
    auto chunk = [&](const i64 (&i)[4]) {
        Chunk<A, LENGTH> as = read<LENGTH>(a, at, 0, i);
        Chunk<B, LENGTH> bs = read<LENGTH>(b, at, 1, i);
        Chunk<C, LENGTH> cs = read<LENGTH>(c, at, 2, i);
        Chunk<Y, LENGTH> ys;
        for (int j = 0; j < LENGTH; j++) ys.at[j] = f(as.at[j], bs.at[j], cs.at[j]);
        write_chunk(y + i[3], ys);
    };
    for_each_place<LENGTH>(at, chunk, [&](const i64 (&i)[4]) { y[i[3]] = f(a[i[0]], b[i[1]], c[i[2]]); });
}
