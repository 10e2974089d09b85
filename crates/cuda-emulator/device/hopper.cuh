// The emulator's version of kernels/hopper.cuh: the same functions, in C++. What each does is documented there.
#pragma once
#include "ptx.cuh"

#ifndef __CUDA_ARCH_FEAT_SM90_ALL
#error "a kernel for Hopper: compile it for sm_90a"
#endif

// ---- barriers in shared memory

struct Mbarrier {
  unsigned long long state;
};

inline void mbarrier_init(Mbarrier *barrier, unsigned arrivals, EMULATOR_HERE) {
  emulator_mbarrier_init(barrier, arrivals, file, line);
}
inline void fence_mbarrier_init() { emulator_mbarrier_fence(); }
inline void mbarrier_arrive(Mbarrier *barrier, EMULATOR_HERE) { emulator_mbarrier_arrive(barrier, 0, file, line); }
inline void mbarrier_arrive_cluster(Mbarrier *barrier, unsigned rank, EMULATOR_HERE) {
  emulator_mbarrier_arrive_cluster(barrier, rank, file, line);
}
inline void mbarrier_arrive_expect_tx(Mbarrier *barrier, unsigned bytes, EMULATOR_HERE) {
  emulator_mbarrier_arrive(barrier, bytes, file, line);
}
inline void mbarrier_wait(Mbarrier *barrier, unsigned parity, EMULATOR_HERE) {
  emulator_mbarrier_wait(barrier, parity, file, line);
}

// ---- the copy engine

struct alignas(64) TensorMap {
  unsigned long long opaque[16];
};

inline void prefetch_tensor_map(const TensorMap *) {}

inline void tma_load_2d(void *to, const TensorMap *map, Mbarrier *barrier, int x, int y, EMULATOR_HERE) {
  const int at[] = {x, y};
  emulator_tma_load(to, map, barrier, 0, at, 2, file, line);
}
inline void tma_load_4d(void *to, const TensorMap *map, Mbarrier *barrier, int x, int y, int z, int w, EMULATOR_HERE) {
  const int at[] = {x, y, z, w};
  emulator_tma_load(to, map, barrier, 0, at, 4, file, line);
}
inline void tma_load_4d_multicast(void *to, const TensorMap *map, Mbarrier *barrier, unsigned short ranks, int x,
                                  int y, int z, int w, EMULATOR_HERE) {
  const int at[] = {x, y, z, w};
  emulator_tma_load(to, map, barrier, ranks, at, 4, file, line);
}

inline void fence_proxy_async() { emulator_fence_proxy_async(); }

inline void tma_store_3d(const TensorMap *map, const void *from, int x, int y, int z, EMULATOR_HERE) {
  const int at[] = {x, y, z};
  emulator_tma_store(map, from, at, 3, file, line);
}
inline void tma_store_4d(const TensorMap *map, const void *from, int x, int y, int z, int w, EMULATOR_HERE) {
  const int at[] = {x, y, z, w};
  emulator_tma_store(map, from, at, 4, file, line);
}
inline void bulk_commit() { emulator_bulk_commit(); }
template <int groups_left>
inline void bulk_wait_read() {
  emulator_bulk_wait_read(groups_left);
}
template <int groups_left>
inline void bulk_wait() {
  emulator_bulk_wait(groups_left);
}

inline void bulk_load(void *to, const void *from, unsigned bytes, Mbarrier *barrier, EMULATOR_HERE) {
  emulator_bulk_load(to, from, bytes, barrier, file, line);
}
inline void bulk_store(void *to, const void *from, unsigned bytes, EMULATOR_HERE) {
  emulator_bulk_store(to, from, bytes, false, file, line);
}
inline void bulk_add_f32(float *to, const float *from, unsigned bytes, EMULATOR_HERE) {
  emulator_bulk_store(to, from, bytes, true, file, line);
}
inline void fence_proxy_async_global() { emulator_fence_proxy_async_global(); }

// ---- clusters

inline unsigned cluster_rank() { return emulator_cluster_rank(); }
inline void cluster_arrive(EMULATOR_HERE) { emulator_cluster_arrive(file, line); }
inline void cluster_wait(EMULATOR_HERE) { emulator_cluster_wait(file, line); }

// ---- registers

template <int registers>
inline void setmaxnreg_dec() {
  static_assert(registers >= 24 && registers <= 256 && registers % 8 == 0);
}
template <int registers>
inline void setmaxnreg_inc() {
  static_assert(registers >= 24 && registers <= 256 && registers % 8 == 0);
}

inline void stmatrix_x4(void *row, const unsigned (&r)[4], EMULATOR_HERE) {
  EmulatorStmatrix part{r, row};
  emulator_warp(0xFFFFFFFFu, &emulator_stmatrix, &part, file, line);
}

// ---- matrix products of a warpgroup

inline unsigned long long matrix_descriptor(const void *start, unsigned group_bytes, unsigned panel_bytes,
                                            EMULATOR_HERE) {
  return 1ull << 62 | (unsigned long long)(group_bytes >> 4) << 32 | (unsigned long long)(panel_bytes >> 4) << 16 |
         (emulator_shared_address(start, file, line) & 0x3FFFF) >> 4;
}
inline unsigned long long advance(unsigned long long descriptor, unsigned bytes) { return descriptor + (bytes >> 4); }

inline void wgmma_fence(EMULATOR_HERE) {
  emulator_warp(0xFFFFFFFFu, &emulator_wgmma_fence, nullptr, file, line);
}
inline void wgmma_commit(EMULATOR_HERE) {
  emulator_warp(0xFFFFFFFFu, &emulator_wgmma_commit, nullptr, file, line);
}
template <int groups_left>
inline void wgmma_wait(EMULATOR_HERE) {
  unsigned groups = groups_left;
  emulator_warp(0xFFFFFFFFu, &emulator_wgmma_wait, &groups, file, line);
}
template <int N>
inline void wgmma_hold(float (&)[N]) {}
template <int N>
inline void wgmma_hold(unsigned (&)[N][4]) {}

#define EMULATOR_WGMMA(n, type)                                                                                 \
  template <int TRANSPOSE_A, int TRANSPOSE_B>                                                                   \
  inline void wgmma_m64n##n##k16_##type(float(&d)[n / 2], unsigned long long a, unsigned long long b,           \
                                        bool accumulate, EMULATOR_HERE) {                                       \
    EmulatorWgmma part{d, n, nullptr, a, b, TRANSPOSE_A != 0, TRANSPOSE_B != 0, accumulate};                    \
    emulator_warp(0xFFFFFFFFu, &emulator_wgmma_##type, &part, file, line);                                      \
  }                                                                                                             \
  template <int TRANSPOSE_B>                                                                                    \
  inline void wgmma_m64n##n##k16_##type(float(&d)[n / 2], const unsigned(&a)[4], unsigned long long b,          \
                                        bool accumulate, EMULATOR_HERE) {                                       \
    EmulatorWgmma part{d, n, a, 0, b, false, TRANSPOSE_B != 0, accumulate};                                     \
    emulator_warp(0xFFFFFFFFu, &emulator_wgmma_##type, &part, file, line);                                      \
  }
EMULATOR_WGMMA(64, bf16)
EMULATOR_WGMMA(128, bf16)
EMULATOR_WGMMA(256, bf16)
EMULATOR_WGMMA(64, f16)
EMULATOR_WGMMA(128, f16)
EMULATOR_WGMMA(256, f16)
#undef EMULATOR_WGMMA
#define EMULATOR_WGMMA(n)                                                                                    \
  inline void wgmma_m64n##n##k8_tf32(float(&d)[n / 2], unsigned long long a, unsigned long long b,           \
                                     bool accumulate, EMULATOR_HERE) {                                       \
    EmulatorWgmma part{d, n, nullptr, a, b, false, false, accumulate};                                       \
    emulator_warp(0xFFFFFFFFu, &emulator_wgmma_tf32, &part, file, line);                                     \
  }
EMULATOR_WGMMA(128)
EMULATOR_WGMMA(256)
#undef EMULATOR_WGMMA
