// Tensor cores by the type of their operands; the sums are f32, and of 8-bit integers i32. See ptx.cuh for who holds what.
#pragma once
#include "types.cuh"

// Two neighbours, rounded, in one word: as registers of operands hold them.
__device__ __forceinline__ u32 pack(f32 low, f32 high, bf16) { return pack_bf16x2_rn(low, high); }
__device__ __forceinline__ u32 pack(f32 low, f32 high, f16) { return pack_f16x2_rn(low, high); }

template <class T> struct SumOf { typedef f32 type; };
template <> struct SumOf<i8> { typedef i32 type; };

// d += a · b: 16 rows of A, 8 columns of B, and along K 16 numbers of 16 bits, 32 of 8, or 8 of f32 as TF32.
__device__ __forceinline__ void mma(f32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2], bf16) { mma_m16n8k16_bf16(d, a, b); }
__device__ __forceinline__ void mma(f32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2], f16) { mma_m16n8k16_f16(d, a, b); }
__device__ __forceinline__ void mma(f32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2], f32) { mma_m16n8k8_tf32(d, a, b); }
__device__ __forceinline__ void mma(i32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2], i8) { mma_m16n8k32_s8(d, a, b); }

// Two neighbours, rounded.
__device__ __forceinline__ void store_pair(bf16* to, f32 low, f32 high) { *reinterpret_cast<u32*>(to) = pack(low, high, bf16{}); }
__device__ __forceinline__ void store_pair(f16* to, f32 low, f32 high) { *reinterpret_cast<u32*>(to) = pack(low, high, f16{}); }
__device__ __forceinline__ void store_pair(f32* to, f32 low, f32 high) { *reinterpret_cast<float2*>(to) = make_float2(low, high); }
