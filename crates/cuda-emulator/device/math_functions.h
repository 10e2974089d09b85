// CUDA's mathematical functions: the C library's, CUDA's own additions, and overloads for float.
#pragma once

// Functions that C has for both types under the names `name` and `namef`, and C++ overloads as `name`.
#define EMULATOR_MATH_1(name)                                  \
  extern "C" double name(double) noexcept;                     \
  extern "C" float name##f(float) noexcept;                    \
  inline float name(float x) { return name##f(x); }
#define EMULATOR_MATH_2(name)                                  \
  extern "C" double name(double, double) noexcept;             \
  extern "C" float name##f(float, float) noexcept;             \
  inline float name(float x, float y) { return name##f(x, y); }

EMULATOR_MATH_1(sqrt)
EMULATOR_MATH_1(cbrt)
EMULATOR_MATH_1(exp)
EMULATOR_MATH_1(exp2)
EMULATOR_MATH_1(exp10)
EMULATOR_MATH_1(expm1)
EMULATOR_MATH_1(log)
EMULATOR_MATH_1(log2)
EMULATOR_MATH_1(log10)
EMULATOR_MATH_1(log1p)
EMULATOR_MATH_1(logb)
EMULATOR_MATH_1(sin)
EMULATOR_MATH_1(cos)
EMULATOR_MATH_1(tan)
EMULATOR_MATH_1(asin)
EMULATOR_MATH_1(acos)
EMULATOR_MATH_1(atan)
EMULATOR_MATH_1(sinh)
EMULATOR_MATH_1(cosh)
EMULATOR_MATH_1(tanh)
EMULATOR_MATH_1(asinh)
EMULATOR_MATH_1(acosh)
EMULATOR_MATH_1(atanh)
EMULATOR_MATH_1(erf)
EMULATOR_MATH_1(erfc)
EMULATOR_MATH_1(lgamma)
EMULATOR_MATH_1(tgamma)
EMULATOR_MATH_1(fabs)
EMULATOR_MATH_1(floor)
EMULATOR_MATH_1(ceil)
EMULATOR_MATH_1(trunc)
EMULATOR_MATH_1(round)
EMULATOR_MATH_1(rint)
EMULATOR_MATH_1(nearbyint)
EMULATOR_MATH_2(pow)
EMULATOR_MATH_2(fmod)
EMULATOR_MATH_2(remainder)
EMULATOR_MATH_2(atan2)
EMULATOR_MATH_2(hypot)
EMULATOR_MATH_2(fmax)
EMULATOR_MATH_2(fmin)
EMULATOR_MATH_2(fdim)
EMULATOR_MATH_2(copysign)
EMULATOR_MATH_2(nextafter)
#undef EMULATOR_MATH_1
#undef EMULATOR_MATH_2

extern "C" {
double fma(double, double, double) noexcept;
float fmaf(float, float, float) noexcept;
double ldexp(double, int) noexcept;
float ldexpf(float, int) noexcept;
double scalbn(double, int) noexcept;
float scalbnf(float, int) noexcept;
double frexp(double, int *) noexcept;
float frexpf(float, int *) noexcept;
double modf(double, double *) noexcept;
float modff(float, float *) noexcept;
long lround(double) noexcept;
long lroundf(float) noexcept;
long lrint(double) noexcept;
long lrintf(float) noexcept;
long long llround(double) noexcept;
long long llroundf(float) noexcept;
void sincos(double, double *, double *) noexcept;
void sincosf(float, float *, float *) noexcept;
int abs(int) noexcept;
long labs(long) noexcept;
long long llabs(long long) noexcept;
}
inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
inline long abs(long x) { return labs(x); }
inline long long abs(long long x) { return llabs(x); }
inline float abs(float x) { return fabsf(x); }
inline double abs(double x) { return fabs(x); }

// min and max, also of mixed types, as CUDA's overloads resolve them: to the type of the sum.
template <class A, class B>
constexpr auto min(A a, B b) -> decltype(a + b) {
  using T = decltype(a + b);
  return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B>
constexpr auto max(A a, B b) -> decltype(a + b) {
  using T = decltype(a + b);
  return T(a) < T(b) ? T(b) : T(a);
}
// Of floats they are fminf and fmaxf: a NaN gives way to a number.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

#define EMULATOR_CLASSIFY(name)                                         \
  constexpr bool name(float x) { return __builtin_##name(x); }          \
  constexpr bool name(double x) { return __builtin_##name(x); }
EMULATOR_CLASSIFY(isnan)
EMULATOR_CLASSIFY(isfinite)
#undef EMULATOR_CLASSIFY
constexpr bool isinf(float x) { return __builtin_isinf(x) != 0; }
constexpr bool isinf(double x) { return __builtin_isinf(x) != 0; }
constexpr bool signbit(float x) { return __builtin_signbit(x) != 0; }
constexpr bool signbit(double x) { return __builtin_signbit(x) != 0; }

inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float rcbrtf(float x) { return 1 / cbrtf(x); }

// sin(πx) and cos(πx): the remainder is exact, so whole and half numbers give exact zeros and ones.
inline double sinpi(double x) {
  double r = remainder(x, 2.0);
  return r == 1 || r == -1 ? copysign(0.0, x) : fabs(r) == 0.5 ? copysign(1.0, r) : sin(3.14159265358979323846 * r);
}
inline double cospi(double x) {
  double r = fabs(remainder(x, 2.0));
  return r == 0.5 ? 0.0 : r == 1 ? -1.0 : cos(3.14159265358979323846 * r);
}
inline float sinpif(float x) { return float(sinpi(double(x))); }
inline float cospif(float x) { return float(cospi(double(x))); }
inline void sincospi(double x, double *s, double *c) { *s = sinpi(x), *c = cospi(x); }
inline void sincospif(float x, float *s, float *c) { *s = sinpif(x), *c = cospif(x); }

// The distribution functions: Φ(x) = erfc(-x/√2)/2, and the inverse of erf by Giles's polynomials (2012,
// "Approximating the erfinv function") and one Newton step.
inline double normcdf(double x) { return 0.5 * erfc(x * -0.70710678118654752440); }
inline float normcdff(float x) { return float(normcdf(double(x))); }
inline double erfinv(double x) {
  constexpr double centre[] = {2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
                               -0.00125372503, -0.00417768164, 0.246640727, 1.50140941};
  constexpr double tail[] = {-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
                             -0.0076224613, 0.00943887047, 1.00167406, 2.83297682};
  if (!(fabs(x) < 1)) return fabs(x) == 1 ? copysign(__builtin_inf(), x) : __builtin_nan("");
  double w = -log((1 - x) * (1 + x)), p = 0;
  bool central = w < 5;
  w = central ? w - 2.5 : sqrt(w) - 3;
  for (int i = 0; i < 9; i++) p = (central ? centre : tail)[i] + p * w;
  double y = p * x;
  return y - (erf(y) - x) / (1.12837916709551257390 * exp(-y * y));
}
inline float erfinvf(float x) { return float(erfinv(double(x))); }
inline double normcdfinv(double p) { return 1.41421356237309504880 * erfinv(2 * p - 1); }
inline float normcdfinvf(float p) { return float(normcdfinv(double(p))); }

// The fast functions of the special function unit: here as exact as the others.
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frsqrt_rn(float x) { return 1 / sqrtf(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }

// Operations that are never fused into an fma: the empty assembly hides where the product came from.
#if defined(__x86_64__)
#define EMULATOR_OPAQUE(x) asm("" : "+x"(x))
#else
#define EMULATOR_OPAQUE(x) asm("" : "+w"(x))
#endif
#define EMULATOR_ROUNDED(prefix, type, suffix)                                                             \
  inline type prefix##add_rn(type x, type y) { EMULATOR_OPAQUE(x); type r = x + y; return r; }             \
  inline type prefix##sub_rn(type x, type y) { EMULATOR_OPAQUE(x); type r = x - y; return r; }             \
  inline type prefix##mul_rn(type x, type y) { type r = x * y; EMULATOR_OPAQUE(r); return r; }             \
  inline type prefix##div_rn(type x, type y) { return x / y; }                                             \
  inline type prefix##sqrt_rn(type x) { return sqrt##suffix(x); }                                          \
  inline type prefix##rcp_rn(type x) { return 1 / x; }
EMULATOR_ROUNDED(__f, float, f)
EMULATOR_ROUNDED(__d, double, )
#undef EMULATOR_ROUNDED
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
