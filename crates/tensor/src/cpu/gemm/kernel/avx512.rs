//! AVX-512: tiles of 14 rows × 2 vectors. 28 of the 32 registers hold the tile, 2 a row of `B`, 1 an element of `A`.

use super::simd::{simd_kernel, simd_ops};

simd_ops!(
    zmm_f32,
    "avx512f,avx512bw,avx512dq,avx512vl",
    f32,
    __m512,
    __mmask16,
    16,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    |n| (0xffff_u32 >> (16 - n)) as u16,
    |p, m| _mm512_maskz_loadu_ps(m, p),
    |p, m, v| _mm512_mask_storeu_ps(p, m, v)
);
simd_ops!(
    zmm_f64,
    "avx512f,avx512bw,avx512dq,avx512vl",
    f64,
    __m512d,
    __mmask8,
    8,
    _mm512_setzero_pd,
    _mm512_set1_pd,
    _mm512_fmadd_pd,
    _mm512_add_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    |n| (0xff_u32 >> (8 - n)) as u8,
    |p, m| _mm512_maskz_loadu_pd(m, p),
    |p, m, v| _mm512_mask_storeu_pd(p, m, v)
);
simd_kernel!(f32, "avx512f,avx512bw,avx512dq,avx512vl", zmm_f32, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], [0 1 2 3 4 5 6 7 8 9 10 11 12 13], avx2_f32);
simd_kernel!(f64, "avx512f,avx512bw,avx512dq,avx512vl", zmm_f64, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], [0 1 2 3 4 5 6 7 8 9 10 11 12 13], avx2_f64);

/// Packed pairs of bf16: the same tiles, with a dot product of two terms in place of the multiply-add. What is loaded and
/// broadcast as `f32` is 32 bits of two bf16.
pub mod pairs {
    use super::super::simd::simd_kernel;

    mod ops {
        pub use super::super::zmm_f32::*;
        use std::arch::x86_64::*;

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
        pub fn fma(a: V, b: V, c: V) -> V {
            // SAFETY: vectors of one size, of which every bit pattern is a value.
            let (a, b) = unsafe { (std::mem::transmute::<V, __m512bh>(a), std::mem::transmute::<V, __m512bh>(b)) };
            _mm512_dpbf16_ps(c, a, b)
        }
    }
    simd_kernel!(f32, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", ops, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], [0 1 2 3 4 5 6 7 8 9 10 11 12 13], avx2_f32);
}
