// float4 and its kin, with the alignments of CUDA.
#pragma once

#define EMULATOR_VECTORS(type, name, align2, align4)                                      \
  struct name##1 {                                                                        \
    type x;                                                                               \
  };                                                                                      \
  struct __attribute__((aligned(align2))) name##2 {                                       \
    type x, y;                                                                            \
  };                                                                                      \
  struct name##3 {                                                                        \
    type x, y, z;                                                                         \
  };                                                                                      \
  struct __attribute__((aligned(align4))) name##4 {                                       \
    type x, y, z, w;                                                                      \
  };                                                                                      \
  EMULATOR_MAKERS(type, name)
#define EMULATOR_MAKERS(type, name)                                                       \
  inline name##1 make_##name##1(type x) { return {x}; }                                   \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }                        \
  inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }             \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

EMULATOR_VECTORS(signed char, char, 2, 4)
EMULATOR_VECTORS(unsigned char, uchar, 2, 4)
EMULATOR_VECTORS(short, short, 4, 8)
EMULATOR_VECTORS(unsigned short, ushort, 4, 8)
EMULATOR_VECTORS(int, int, 8, 16)
EMULATOR_VECTORS(long, long, 16, 16)
EMULATOR_VECTORS(unsigned long, ulong, 16, 16)
EMULATOR_VECTORS(long long, longlong, 16, 16)
EMULATOR_VECTORS(unsigned long long, ulonglong, 16, 16)
EMULATOR_VECTORS(float, float, 8, 16)
EMULATOR_VECTORS(double, double, 16, 16)

// uint3 is in contract.h, because thread coordinates have it.
struct uint1 {
  unsigned x;
};
struct __attribute__((aligned(8))) uint2 {
  unsigned x, y;
};
struct __attribute__((aligned(16))) uint4 {
  unsigned x, y, z, w;
};
EMULATOR_MAKERS(unsigned, uint)

#undef EMULATOR_VECTORS
#undef EMULATOR_MAKERS
