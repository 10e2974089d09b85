// Elementwise functions of integers. Sums and products wrap: they are computed without a sign, where that is what the
// language says.
#pragma once
#include "types.cuh"

struct Scalars { i64 a, b; };

#define UNARY(name) template <class T> __device__ __forceinline__ T name(T x, Scalars s)
#define BINARY(name) template <class T> __device__ __forceinline__ T name(T a, T b)

UNARY(neg) { return T(0ull - (u64)x); }
UNARY(absolute) { return x < T(0) ? T(0ull - (u64)x) : x; }
UNARY(sign) { return T((x > T(0)) - (x < T(0))); }
UNARY(square) { return T((u64)x * (u64)x); }
UNARY(add_scalar) { return T((u64)x + (u64)s.a); }
UNARY(mul_scalar) { return T((u64)x * (u64)s.a); }
UNARY(rsub_scalar) { return T((u64)s.a - (u64)x); }
// The bounds are of the type already.
UNARY(clamp) {
    x = x > T(s.a) ? x : T(s.a);
    return x < T(s.b) ? x : T(s.b);
}
UNARY(relu) { return x > T(0) ? x : T(0); }
UNARY(powi) {
    u64 base = (u64)x, product = 1;
    for (u64 left = s.a > 0 ? (u64)s.a : 0; left > 0; left >>= 1) {
        if (left & 1) product *= base;
        base *= base;
    }
    return T(product);
}
UNARY(floor_) { return x; }
UNARY(ceil_) { return x; }
UNARY(round_) { return x; }

BINARY(add) { return T((u64)a + (u64)b); }
BINARY(sub) { return T((u64)a - (u64)b); }
BINARY(mul) { return T((u64)a * (u64)b); }
BINARY(rem) {
    // The smallest number by −1 has a quotient that overflows; a divisor of 0 was refused before.
    if (b == T(0) || b == T(-1)) return T(0);
    T r = a % b;
    return r != T(0) && (r < T(0)) != (b < T(0)) ? T(r + b) : r;
}
BINARY(maximum) { return a > b ? a : b; }
BINARY(minimum) { return a < b ? a : b; }
#undef UNARY
#undef BINARY
