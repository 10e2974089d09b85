//! AVX-512: tiles of 14 rows × 2 vectors. 28 of the 32 registers hold the tile, 2 a row of `B`, 1 an element of `A`.

use super::simd::{simd_dot, simd_kernel, simd_ops};

simd_ops!(
    zmm_f32,
    "avx512f,avx512bw,avx512dq,avx512vl",
    f32,
    __m512,
    __mmask16,
    16,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    |a, b, c| _mm512_fmadd_ps(a, b, c),
    _mm512_add_ps,
    |p| _mm512_loadu_ps(p),
    |p, v| _mm512_storeu_ps(p, v),
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
    |a, b, c| _mm512_fmadd_pd(a, b, c),
    _mm512_add_pd,
    |p| _mm512_loadu_pd(p),
    |p, v| _mm512_storeu_pd(p, v),
    |n| (0xff_u32 >> (8 - n)) as u8,
    |p, m| _mm512_maskz_loadu_pd(m, p),
    |p, m, v| _mm512_mask_storeu_pd(p, m, v)
);
// The multiply-add is a dot product of two terms, pairs of 16 bits.
simd_ops!(
    zmm_i32,
    "avx512f,avx512bw,avx512dq,avx512vl",
    i32,
    __m512i,
    __mmask16,
    16,
    _mm512_setzero_si512,
    _mm512_set1_epi32,
    |a, b, c| _mm512_add_epi32(c, _mm512_madd_epi16(a, b)),
    _mm512_add_epi32,
    |p| _mm512_loadu_epi32(p),
    |p, v| _mm512_storeu_epi32(p, v),
    |n| (0xffff_u32 >> (16 - n)) as u16,
    |p, m| _mm512_maskz_loadu_epi32(m, p),
    |p, m, v| _mm512_mask_storeu_epi32(p, m, v)
);
simd_dot!(dot_f32, f32, "avx512f,avx512bw,avx512dq,avx512vl", zmm_f32);
simd_dot!(dot_f64, f64, "avx512f,avx512bw,avx512dq,avx512vl", zmm_f64);
simd_kernel!(f32, "avx512f,avx512bw,avx512dq,avx512vl", zmm_f32, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], [0 1 2 3 4 5 6 7 8 9 10 11 12 13], Some(super::dot_f32::dot), avx2_f32);
simd_kernel!(f64, "avx512f,avx512bw,avx512dq,avx512vl", zmm_f64, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], [0 1 2 3 4 5 6 7 8 9 10 11 12 13], Some(super::dot_f64::dot), avx2_f64);

/// Packed pairs of bf16: the same tiles, with a dot product of two terms in place of the multiply-add. What is loaded and
/// broadcast as `f32` is 32 bits of two bf16.
pub mod pairs {
    use super::super::simd::{simd_dot, simd_kernel};

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
    simd_dot!(dot, f32, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", ops);
    simd_kernel!(f32, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", ops, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], [0 1 2 3 4 5 6 7 8 9 10 11 12 13], Some(super::dot::dot), avx2_f32);
}

/// Packed pairs of 16-bit integers: the same tiles, with a dot product of two terms in place of the multiply-add.
pub mod words {
    use super::super::simd::simd_kernel;
    use super::zmm_i32;

    simd_kernel!(i32, "avx512f,avx512bw,avx512dq,avx512vl", zmm_i32, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], [0 1 2 3 4 5 6 7 8 9 10 11 12 13], None, avx2_i32);
}

/// Packed fours of 8-bit integers, unsigned in `A` and signed in `B`: the same tiles, with VNNI's dot product of four terms.
pub mod quads {
    use super::super::simd::simd_kernel;
    use std::arch::x86_64::*;

    mod ops {
        pub use super::super::zmm_i32::*;
        use std::arch::x86_64::*;

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        pub fn fma(a: V, b: V, c: V) -> V {
            _mm512_dpbusd_epi32(c, a, b)
        }
    }
    simd_kernel!(i32, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", ops, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], [0 1 2 3 4 5 6 7 8 9 10 11 12 13], None, avx2_i32);

    /// `sums[j] −= 128 · Σ` of the bytes of column `j` of a packed block of `B`.
    ///
    /// # Safety
    /// The CPU has these instructions.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub unsafe fn take_off_128(panels: &[i32], steps: usize, width: usize, sums: &mut [i32]) {
        let half = _mm512_set1_epi8(-128);
        for (panel, sums) in panels.chunks(width * steps).zip(sums.chunks_mut(width)) {
            let w = sums.len();
            assert_eq!(panel.len(), w * steps);
            for j in (0..w).step_by(ops::LANES) {
                let lanes = ops::mask((w - j).min(ops::LANES));
                // Four chains cover the latency of the dot product.
                let mut acc = [ops::zero(); 4];
                for p in 0..steps {
                    // SAFETY: columns `j..w` of row `p` of the panel; the mask hides the others.
                    let row = unsafe { ops::load_mask(panel.as_ptr().add(p * w + j), lanes) };
                    acc[p % 4] = ops::fma(half, row, acc[p % 4]);
                }
                let sum = ops::add(ops::add(acc[0], acc[1]), ops::add(acc[2], acc[3]));
                // SAFETY: elements `j..w` of the sums.
                unsafe {
                    let at = sums.as_mut_ptr().add(j);
                    ops::store_mask(at, lanes, _mm512_sub_epi32(ops::load_mask(at, lanes), sum));
                }
            }
        }
    }
}
