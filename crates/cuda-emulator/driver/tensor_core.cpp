// The matrix instructions of a warp, and the 16-bit numbers that they work on.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "scheduler.h"

#define DEVICE_API extern "C" __attribute__((visibility("default")))

namespace emulator {

namespace {

size_t bank_conflicts = 0;

float as_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
uint32_t as_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

[[noreturn]] void fail_collective(const char *message) {
  gang.fail(message, gang.current->file, gang.current->line);
}

// The eight rows of a matrix are read at once: each takes four of the 32 banks, and rows in the same banks take turns.
void count_conflicts(const uintptr_t (&rows)[8]) {
  unsigned rows_in[8] = {}, turns = 0;
  for (uintptr_t row : rows) turns = std::max(turns, ++rows_in[row / 16 % 8]);
  bank_conflicts += turns - 1;
}

void stmatrix(void **parts, unsigned lanes) {
  if (lanes != ~0u) fail_collective("stmatrix needs all lanes of the warp");
  for (int matrix = 0; matrix < 4; matrix++) {
    uintptr_t rows[8];
    uint16_t values[8][8];
    for (int lane = 0; lane < 32; lane++) {
      const int g = lane / 4, t = lane % 4;
      const uint32_t pair = static_cast<EmulatorStmatrix *>(parts[lane])->fragments[matrix];
      values[g][2 * t] = uint16_t(pair);
      values[g][2 * t + 1] = uint16_t(pair >> 16);
    }
    for (unsigned i = 0; i < 8; i++) {
      void *row = static_cast<EmulatorStmatrix *>(parts[8 * matrix + int(i)])->row;
      rows[i] = reinterpret_cast<uintptr_t>(row);
      if (rows[i] % 16) fail_collective("stmatrix to a row that is not aligned");
      if (!gang.is_shared(row, 16)) fail_collective("stmatrix to outside shared memory");
      memcpy(row, values[i], 16);
      // Lanes 4 i … 4 i + 3 hold the row.
      gang.current->block->unfenced.add(gang.shared_address(row), gang.current->id / warp_size, 0xFu << 4 * i);
    }
    count_conflicts(rows);
  }
}

void ldmatrix(void **parts, unsigned lanes) {
  const auto *first = static_cast<EmulatorLdmatrix *>(parts[0]);
  if (lanes != ~0u) fail_collective("ldmatrix needs all lanes of the warp");
  for (int matrix = 0; matrix < first->matrices; matrix++) {
    uintptr_t rows[8];
    uint16_t values[8][8];
    for (int i = 0; i < 8; i++) {
      const void *row = static_cast<EmulatorLdmatrix *>(parts[8 * matrix + i])->row;
      rows[i] = reinterpret_cast<uintptr_t>(row);
      if (reinterpret_cast<uintptr_t>(row) % 16) fail_collective("ldmatrix from a row that is not aligned");
      if (!gang.is_shared(row, 16)) fail_collective("ldmatrix from outside shared memory");
      memcpy(values[i], row, 16);
    }
    count_conflicts(rows);
    for (int lane = 0; lane < 32; lane++) {
      const int g = lane / 4, t = lane % 4;
      const uint16_t low = first->transposed ? values[2 * t][g] : values[g][2 * t];
      const uint16_t high = first->transposed ? values[2 * t + 1][g] : values[g][2 * t + 1];
      static_cast<EmulatorLdmatrix *>(parts[lane])->fragments[matrix] = low | uint32_t(high) << 16;
    }
  }
}

float f16_to_f32(uint32_t bits) {
  const uint32_t sign = (bits & 0x8000) << 16, magnitude = bits & 0x7FFF;
  // The exponents differ by 112; subnormal halves are exact multiples of 2^-24.
  if (magnitude < 0x0400) return as_float(sign | as_bits(float(magnitude) * 0x1p-24f));
  const uint32_t exponent_shift = magnitude < 0x7C00 ? 112u << 23 : 224u << 23;
  return as_float(sign | ((magnitude << 13) + exponent_shift));
}

float from_bf16(uint32_t bits) { return as_float(bits << 16); }
float from_f16(uint32_t bits) { return f16_to_f32(bits); }
// The hardware reads the upper 19 bits.
float from_tf32(uint32_t bits) { return as_float(bits & ~0x1FFFu); }

// sums [16, 8] = a [16, K] b [K, 8].
#if defined(__x86_64__)
__attribute__((optimize("O3"), target_clones("default", "avx2")))
#endif
void sum_products(float (*sums)[8], const float *a, const float (*b)[8], int K) {
  for (int row = 0; row < 16; row++) {
    float sum[8] = {};
    for (int k = 0; k < K; k++)
      for (int column = 0; column < 8; column++) sum[column] += a[row * K + k] * b[k][column];
    memcpy(sums[row], sum, sizeof sum);
  }
}

// d [16, 8] += a [16, K] b [K, 8]. Products are exact in f32; the order of the sum is not the hardware's.
template <int K>
void multiply(void **parts, const float (&a)[16][K], const float (&b)[K][8]) {
  float sums[16][8];
  sum_products(sums, a[0], b, K);
  for (int lane = 0; lane < 32; lane++) {
    const int g = lane / 4, t = lane % 4;
    float *d = static_cast<EmulatorMma *>(parts[lane])->d;
    for (int i = 0; i < 4; i++) d[i] += sums[g + 8 * (i / 2)][2 * t + i % 2];
  }
}

// Sixteen-bit operands: two numbers in each register, next to each other along k.
template <float (*widen)(uint32_t)>
void mma_k16(void **parts, unsigned lanes) {
  if (lanes != ~0u) fail_collective("mma needs all lanes of the warp");
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; lane++) {
    const int g = lane / 4, t = lane % 4;
    const auto *part = static_cast<EmulatorMma *>(parts[lane]);
    for (int half = 0; half < 2; half++) {
      const int k = 2 * t + half, shift = 16 * half;
      for (int i = 0; i < 4; i++) a[g + 8 * (i % 2)][k + 8 * (i / 2)] = widen(part->a[i] >> shift & 0xFFFF);
      for (int i = 0; i < 2; i++) b[k + 8 * i][g] = widen(part->b[i] >> shift & 0xFFFF);
    }
  }
  multiply(parts, a, b);
}

void mma_k8(void **parts, unsigned lanes) {
  if (lanes != ~0u) fail_collective("mma needs all lanes of the warp");
  float a[16][8], b[8][8];
  for (int lane = 0; lane < 32; lane++) {
    const int g = lane / 4, t = lane % 4;
    const auto *part = static_cast<EmulatorMma *>(parts[lane]);
    for (int i = 0; i < 4; i++) a[g + 8 * (i % 2)][t + 4 * (i / 2)] = from_tf32(part->a[i]);
    for (int i = 0; i < 2; i++) b[t + 4 * i][g] = from_tf32(part->b[i]);
  }
  multiply(parts, a, b);
}

// Eight-bit operands: four integers in each register, next to each other along k. Sums wrap.
void mma_s8(void **parts, unsigned lanes) {
  if (lanes != ~0u) fail_collective("mma needs all lanes of the warp");
  int a[16][32], b[32][8];
  for (int lane = 0; lane < 32; lane++) {
    const int g = lane / 4, t = lane % 4;
    const auto *part = static_cast<EmulatorMmaS8 *>(parts[lane]);
    for (int byte = 0; byte < 4; byte++) {
      const int k = 4 * t + byte, shift = 8 * byte;
      for (int i = 0; i < 4; i++) a[g + 8 * (i % 2)][k + 16 * (i / 2)] = int8_t(part->a[i] >> shift);
      for (int i = 0; i < 2; i++) b[k + 16 * i][g] = int8_t(part->b[i] >> shift);
    }
  }
  for (int lane = 0; lane < 32; lane++) {
    int *d = static_cast<EmulatorMmaS8 *>(parts[lane])->d;
    for (int i = 0; i < 4; i++) {
      const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
      int sum = 0;
      for (int k = 0; k < 32; k++) sum += a[row][k] * b[k][column];
      d[i] = int(unsigned(d[i]) + unsigned(sum));
    }
  }
}

void mma_f64(void **parts, unsigned lanes) {
  if (lanes != ~0u) fail_collective("mma needs all lanes of the warp");
  double a[8][4], b[4][8];
  for (int lane = 0; lane < 32; lane++) {
    const auto *part = static_cast<EmulatorMmaF64 *>(parts[lane]);
    a[lane / 4][lane % 4] = part->a;
    b[lane % 4][lane / 4] = part->b;
  }
  for (int lane = 0; lane < 32; lane++) {
    double *d = static_cast<EmulatorMmaF64 *>(parts[lane])->d;
    for (int i = 0; i < 2; i++)
      for (int k = 0; k < 4; k++) d[i] = std::fma(a[lane / 4][k], b[k][2 * (lane % 4) + i], d[i]);
  }
}

}  // namespace
}  // namespace emulator

using namespace emulator;

// How often rows of one ldmatrix or stmatrix had to take turns: 0 for a tile that is swizzled as it should be.
DEVICE_API size_t emulator_count_bank_conflicts() { return bank_conflicts; }

DEVICE_API const EmulatorCollective emulator_ldmatrix = {"ldmatrix", ldmatrix};
DEVICE_API const EmulatorCollective emulator_stmatrix = {"stmatrix", stmatrix};
DEVICE_API const EmulatorCollective emulator_mma_m16n8k16_bf16 = {"mma.m16n8k16 (bf16)", mma_k16<from_bf16>};
DEVICE_API const EmulatorCollective emulator_mma_m16n8k16_f16 = {"mma.m16n8k16 (f16)", mma_k16<from_f16>};
DEVICE_API const EmulatorCollective emulator_mma_m16n8k8_tf32 = {"mma.m16n8k8 (tf32)", mma_k8};
DEVICE_API const EmulatorCollective emulator_mma_m16n8k32_s8 = {"mma.m16n8k32 (s8)", mma_s8};
DEVICE_API const EmulatorCollective emulator_mma_m8n8k4_f64 = {"mma.m8n8k4 (f64)", mma_f64};

DEVICE_API float emulator_f16_to_f32(unsigned short bits) { return f16_to_f32(bits); }

DEVICE_API unsigned short emulator_f32_to_f16(float x) {
  const uint32_t sign = as_bits(x) >> 16 & 0x8000, magnitude = as_bits(x) & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return 0x7FFF;  // the NaN that cvt makes
  if (magnitude >= 0x477FF000) return uint16_t(sign | 0x7C00);  // from 65520 on
  // Below 2^-14 the result is a multiple of 2^-24, to which adding 1/2 rounds.
  if (magnitude < 0x38800000) return uint16_t(sign | (as_bits(as_float(magnitude) + 0.5f) - as_bits(0.5f)));
  return uint16_t(sign | ((magnitude - (112u << 23) + 0x0FFF + (magnitude >> 13 & 1)) >> 13));
}

DEVICE_API unsigned short emulator_f32_to_bf16(float x) {
  const uint32_t bits = as_bits(x);
  if (x != x) return 0x7FFF;
  return uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
