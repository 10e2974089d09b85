// Bit patterns, conversions and integer intrinsics.
#pragma once

namespace emulator {
template <class To, class From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
// The integer nearest to `x` under a rounding function, kept within the range of `Integer`; NaN becomes 0.
template <class Integer, class Real>
inline Integer saturate(Real x) {
  constexpr Integer lowest = Integer(-1) < 0 ? Integer(1) << (8 * sizeof(Integer) - 1) : Integer(0);
  if (x != x) return 0;
  if (x <= Real(lowest)) return lowest;
  if (x >= Real(Integer(~lowest))) return Integer(~lowest);
  return Integer(x);
}
}  // namespace emulator

inline unsigned __float_as_uint(float x) { return emulator::bits<unsigned>(x); }
inline int __float_as_int(float x) { return emulator::bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emulator::bits<float>(x); }
inline float __int_as_float(int x) { return emulator::bits<float>(x); }
inline long long __double_as_longlong(double x) { return emulator::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emulator::bits<double>(x); }
inline int __double2hiint(double x) { return int(__double_as_longlong(x) >> 32); }
inline int __double2loint(double x) { return int(__double_as_longlong(x)); }
inline double __hiloint2double(int high, int low) {
  return __longlong_as_double((long long)((unsigned long long)(unsigned)high << 32 | (unsigned)low));
}

#define EMULATOR_CONVERT(from, from_name, to, to_name, suffix)                                                \
  inline to __##from_name##2##to_name##_rn(from x) { return emulator::saturate<to>(rint##suffix(x)); }       \
  inline to __##from_name##2##to_name##_rz(from x) { return emulator::saturate<to>(trunc##suffix(x)); }      \
  inline to __##from_name##2##to_name##_rd(from x) { return emulator::saturate<to>(floor##suffix(x)); }      \
  inline to __##from_name##2##to_name##_ru(from x) { return emulator::saturate<to>(ceil##suffix(x)); }
EMULATOR_CONVERT(float, float, int, int, f)
EMULATOR_CONVERT(float, float, unsigned, uint, f)
EMULATOR_CONVERT(float, float, long long, ll, f)
EMULATOR_CONVERT(float, float, unsigned long long, ull, f)
EMULATOR_CONVERT(double, double, int, int, )
EMULATOR_CONVERT(double, double, unsigned, uint, )
EMULATOR_CONVERT(double, double, long long, ll, )
EMULATOR_CONVERT(double, double, unsigned long long, ull, )
#undef EMULATOR_CONVERT
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __ll2float_rn(long long x) { return float(x); }
inline float __ull2float_rn(unsigned long long x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
  x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
  x = (x >> 4 & 0x0F0F0F0Fu) | (x & 0x0F0F0F0Fu) << 4;
  return __builtin_bswap32(x);
}
inline unsigned long long __brevll(unsigned long long x) {
  return (unsigned long long)__brev(unsigned(x)) << 32 | __brev(unsigned(x >> 32));
}
inline int __mulhi(int x, int y) { return int((long long)x * y >> 32); }
inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned((unsigned long long)x * y >> 32); }
inline long long __mul64hi(long long x, long long y) { return (long long)((__int128)x * y >> 64); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return (unsigned long long)((unsigned __int128)x * y >> 64);
}
inline int __mul24(int x, int y) { return int((unsigned)(x << 8 >> 8) * (unsigned)(y << 8 >> 8)); }
// Byte `i` of the result is the byte of (y, x) that nibble `i` of `selector` names; its top bit copies the sign.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  unsigned long long bytes = (unsigned long long)y << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) {
    unsigned nibble = selector >> 4 * i & 0xF, byte = unsigned(bytes >> 8 * (nibble & 7)) & 0xFF;
    if (nibble & 8) byte = byte & 0x80 ? 0xFF : 0;
    result |= byte << 8 * i;
  }
  return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return unsigned(((unsigned long long)high << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return unsigned(((unsigned long long)high << 32 | low) >> (shift & 31));
}

// Loads and stores with a cache policy are plain ones.
template <class T>
inline T __ldg(const T *p) { return *p; }
template <class T>
inline T __ldcs(const T *p) { return *p; }
template <class T>
inline T __ldcg(const T *p) { return *p; }
template <class T>
inline T __ldca(const T *p) { return *p; }
template <class T>
inline void __stcs(T *p, emulator::Same<T> value) { *p = value; }
template <class T>
inline void __stcg(T *p, emulator::Same<T> value) { *p = value; }
template <class T>
inline void __stwt(T *p, emulator::Same<T> value) { *p = value; }

// A clock that only counts its own readings: the same run gives the same values.
namespace emulator {
inline long long clock_readings = 0;
}
inline long long clock64() { return ++emulator::clock_readings; }
inline int clock() { return int(clock64()); }
