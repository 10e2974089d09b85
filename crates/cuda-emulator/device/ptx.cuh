// The emulator's version of kernels/ptx.cuh: the same functions, in C++. What each does is documented there.
#pragma once

#define DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(emulator_dynamic_shared())

inline unsigned lane_id() { return emulator_lane(); }
inline unsigned shared_address(const void *p, EMULATOR_HERE) { return emulator_shared_address(p, file, line); }

// ---- asynchronous copies from global to shared memory

inline void cp_async_4(void *to, const void *from, int bytes = 4, EMULATOR_HERE) {
  emulator_copy_async(to, from, 4, unsigned(bytes), file, line);
}
inline void cp_async_8(void *to, const void *from, int bytes = 8, EMULATOR_HERE) {
  emulator_copy_async(to, from, 8, unsigned(bytes), file, line);
}
inline void cp_async_16(void *to, const void *from, int bytes = 16, EMULATOR_HERE) {
  emulator_copy_async(to, from, 16, unsigned(bytes), file, line);
}
inline void cp_async_commit() { emulator_copy_commit(); }
template <int groups_left>
inline void cp_async_wait() {
  emulator_copy_wait(groups_left);
}
inline void cp_async_wait_all() {
  emulator_copy_commit();
  emulator_copy_wait(0);
}

// ---- matrix fragments

#define EMULATOR_LDMATRIX(name, matrices, transposed)                                              \
  inline void name(unsigned (&r)[matrices], const void *row, EMULATOR_HERE) {                      \
    EmulatorLdmatrix part{r, row, matrices, transposed};                                           \
    emulator_warp(0xFFFFFFFFu, &emulator_ldmatrix, &part, file, line);                             \
  }
EMULATOR_LDMATRIX(ldmatrix_x1, 1, false)
EMULATOR_LDMATRIX(ldmatrix_x2, 2, false)
EMULATOR_LDMATRIX(ldmatrix_x4, 4, false)
EMULATOR_LDMATRIX(ldmatrix_x1_trans, 1, true)
EMULATOR_LDMATRIX(ldmatrix_x2_trans, 2, true)
EMULATOR_LDMATRIX(ldmatrix_x4_trans, 4, true)
#undef EMULATOR_LDMATRIX

// ---- matrix products on tensor cores

#define EMULATOR_MMA(name)                                                                                    \
  inline void name(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], EMULATOR_HERE) {            \
    EmulatorMma part{d, a, b};                                                                                \
    emulator_warp(0xFFFFFFFFu, &emulator_##name, &part, file, line);                                          \
  }
EMULATOR_MMA(mma_m16n8k16_bf16)
EMULATOR_MMA(mma_m16n8k16_f16)
EMULATOR_MMA(mma_m16n8k8_tf32)
#undef EMULATOR_MMA
inline void mma_m16n8k32_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], EMULATOR_HERE) {
  EmulatorMmaS8 part{d, a, b};
  emulator_warp(0xFFFFFFFFu, &emulator_mma_m16n8k32_s8, &part, file, line);
}
inline void mma_m8n8k4_f64(double (&d)[2], double a, double b, EMULATOR_HERE) {
  EmulatorMmaF64 part{d, a, b};
  emulator_warp(0xFFFFFFFFu, &emulator_mma_m8n8k4_f64, &part, file, line);
}

// ---- conversions

inline unsigned f32_to_tf32(float x) {
  unsigned bits = __float_as_uint(x);
  return isfinite(x) ? (bits + 0x1000u) & ~0x1FFFu : bits;
}
inline float f16_to_f32(unsigned short x) { return emulator_f16_to_f32(x); }
inline unsigned short f32_to_f16_rn(float x) { return emulator_f32_to_f16(x); }
inline unsigned short f32_to_bf16_rn(float x) { return emulator_f32_to_bf16(x); }
inline unsigned pack_bf16x2_rn(float low, float high) {
  return f32_to_bf16_rn(low) | unsigned(f32_to_bf16_rn(high)) << 16;
}
inline unsigned pack_f16x2_rn(float low, float high) {
  return f32_to_f16_rn(low) | unsigned(f32_to_f16_rn(high)) << 16;
}

// ---- the special function unit, with its treatment of subnormal numbers

namespace emulator {
inline float flushed(float x) { return fabsf(x) < 1.17549435e-38f ? copysignf(0, x) : x; }
}  // namespace emulator
inline float ex2_approx(float x) { return emulator::flushed(exp2f(emulator::flushed(x))); }
inline float lg2_approx(float x) { return log2f(emulator::flushed(x)); }
inline float rcp_approx(float x) { return emulator::flushed(1 / emulator::flushed(x)); }
inline float tanh_approx(float x) { return tanhf(x); }

// ---- global memory

template <class Vector>
inline Vector ld_streaming(const Vector *p) {
  static_assert(sizeof(Vector) == 16);
  return *p;
}
template <class Vector>
inline void st_streaming(Vector *p, emulator::Same<Vector> v) {
  static_assert(sizeof(Vector) == 16);
  *p = v;
}
inline void red_add_f32(float *p, float v) { *p += v; }
inline void red_add_f32x4(float4 *p, float4 v) { *p = {p->x + v.x, p->y + v.y, p->z + v.z, p->w + v.w}; }
#if __CUDA_ARCH__ >= 900
inline void red_add_bf16x2(unsigned *p, unsigned v) {
  *p = pack_bf16x2_rn(__uint_as_float(*p << 16) + __uint_as_float(v << 16),
                      __uint_as_float(*p & 0xFFFF0000u) + __uint_as_float(v & 0xFFFF0000u));
}
#endif
inline unsigned ld_acquire(const unsigned *p) {
  emulator_yield();
  emulator_acquire();
  return *p;
}
// Others may see a flag before this thread goes on.
inline void st_release(unsigned *p, unsigned v) {
  *p = v;
  emulator_yield();
}
inline void red_release_add(unsigned *p, unsigned v) {
  *p += v;
  emulator_yield();
}

// ---- registers

inline void forget(int &) {}
inline void forget(unsigned &) {}

// ---- barriers among some warps of a block

inline void bar_sync(int id, int threads, EMULATOR_HERE) {
  emulator_barrier(unsigned(id), unsigned(threads), 0, "bar.sync", file, line);
}
inline void bar_arrive(int id, int threads, EMULATOR_HERE) {
  emulator_barrier_arrive(unsigned(id), unsigned(threads), file, line);
}
