// Elementwise functions of floats, in f32 or f64. Each takes the scalars of its operation, whether it needs them or not.
#pragma once
#include "types.cuh"

struct Scalars { f64 a, b; };

#define UNARY(name) template <class T> __device__ __forceinline__ T name(T x, Scalars s)
#define BINARY(name) template <class T> __device__ __forceinline__ T name(T a, T b)

// The standard normal's distribution function and density.
template <class T> __device__ __forceinline__ T normal_cdf(T x) { return T(0.5) * erfc(x * T(-0.70710678118654752440)); }
template <class T> __device__ __forceinline__ T normal_pdf(T x) { return T(0.39894228040143267794) * exp(T(-0.5) * x * x); }
template <class T> __device__ __forceinline__ T logistic(T x) {
    // From the side where the exponential cannot overflow.
    T e = exp(-fabs(x));
    return (x < T(0) ? e : T(1)) / (T(1) + e);
}

UNARY(neg) { return -x; }
UNARY(absolute) { return fabs(x); }
UNARY(sign) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : x * T(0); }
UNARY(square) { return x * x; }
UNARY(add_scalar) { return x + T(s.a); }
UNARY(mul_scalar) { return x * T(s.a); }
UNARY(rsub_scalar) { return T(s.a) - x; }
UNARY(rdiv_scalar) { return T(s.a) / x; }
UNARY(div_scalar) { return x / T(s.a); }
UNARY(clamp) {
    x = x < T(s.a) ? T(s.a) : x;
    return x > T(s.b) ? T(s.b) : x;
}
UNARY(relu) { return x < T(0) ? T(0) : x; }
UNARY(powi) {
    // By repeated squaring; `a` is a whole number.
    i32 n = (i32)s.a;
    u32 left = n < 0 ? 0u - (u32)n : (u32)n;
    T base = x, product = T(1);
    for (; left > 0; left >>= 1) {
        if (left & 1) product *= base;
        base *= base;
    }
    return n < 0 ? T(1) / product : product;
}
UNARY(powf_) { return T(pow(f64(x), s.a)); }
UNARY(exp_) { return exp(x); }
UNARY(expm1_) { return expm1(x); }
UNARY(log_) { return log(x); }
UNARY(log1p_) { return log1p(x); }
UNARY(sqrt_) { return sqrt(x); }
UNARY(rsqrt_) { return T(1) / sqrt(x); }
UNARY(recip) { return T(1) / x; }
UNARY(sin_) { return sin(x); }
UNARY(cos_) { return cos(x); }
UNARY(tanh_) { return tanh(x); }
UNARY(sigmoid) { return logistic(x); }
UNARY(erf_) { return erf(x); }
UNARY(gelu) { return x * normal_cdf(x); }
UNARY(gelu_tanh) {
    // 0.5 (1 + tanh u) = σ(2u), u = √(2/π) (x + 0.044715 x³)
    return x * logistic(T(2 * 0.79788456080286535588) * (x + T(0.044715) * x * x * x));
}
UNARY(silu) { return x * logistic(x); }
UNARY(softplus) { return (x > T(0) ? x : T(0)) + log1p(exp(-fabs(x))); }
UNARY(elu) { return x > T(0) ? x : T(s.a) * expm1(x); }
UNARY(leaky_relu) { return x > T(0) ? x : T(s.a) * x; }
UNARY(floor_) { return floor(x); }
UNARY(ceil_) { return ceil(x); }
UNARY(round_) { return rint(x); }

BINARY(add) { return a + b; }
BINARY(sub) { return a - b; }
BINARY(mul) { return a * b; }
BINARY(divide) { return a / b; }
BINARY(rem) {
    // a − b⌊a/b⌋, computed exactly, with the divisor's sign.
    f64 x = f64(a), y = f64(b), r = fmod(x, y);
    return T(r != 0.0 && (r < 0.0) != (y < 0.0) ? r + y : r);
}
BINARY(power) { return T(pow(f64(a), f64(b))); }
BINARY(maximum) { return a > b || a != a ? a : b; }
BINARY(minimum) { return a < b || a != a ? a : b; }
BINARY(atan2_) { return atan2(a, b); }
// Derivatives, multiplied by the incoming gradient `b`.
BINARY(relu_grad) { return a <= T(0) ? T(0) : b; }
BINARY(tanh_grad) { return b * (T(1) - a * a); }
BINARY(sigmoid_grad) { return b * a * (T(1) - a); }
BINARY(gelu_grad) { return b * (normal_cdf(a) + a * normal_pdf(a)); }
BINARY(gelu_tanh_grad) {
    // σ + x σ (1 − σ) 2u'
    T s = logistic(T(2 * 0.79788456080286535588) * (a + T(0.044715) * a * a * a));
    T slope = T(2 * 0.79788456080286535588) * (T(1) + T(3 * 0.044715) * a * a);
    return b * (s + a * s * (T(1) - s) * slope);
}
BINARY(silu_grad) {
    T s = logistic(a);
    return b * s * (T(1) + a * (T(1) - s));
}
#undef UNARY
#undef BINARY
