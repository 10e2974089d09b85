//! Transposition of a panel's rows into packed order: `dst[p * w + i] = src[i * stride + p]`.

use super::Accumulator;

/// # Safety
/// As [`Kernel::transpose`](super::Kernel::transpose).
pub unsafe fn scalar<A: Accumulator>(src: *const A, stride: isize, w: usize, k: usize, dst: *mut A) {
    for p in 0..k {
        for i in 0..w {
            // SAFETY: `i < w` and `p < k`.
            unsafe { *dst.add(p * w + i) = *src.offset(i as isize * stride).add(p) };
        }
    }
}

/// Four rows of 16 bytes, transposed, with the bits of `flip` flipped in each. The compiler takes such a loop apart byte by
/// byte, so SSE2, which every x86-64 has, is written out.
#[inline(always)]
pub fn interleave(rows: [&[i8; 16]; 4], flip: i8) -> [[i8; 4]; 16] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        // SAFETY: vectors and arrays of one size, of which every bit pattern is a value.
        let vectors = rows.map(|row| unsafe { std::mem::transmute::<[i8; 16], __m128i>(*row) });
        // SAFETY: the compilation target has SSE2.
        let columns = unsafe {
            let [a, b, c, d] = vectors.map(|v| _mm_xor_si128(v, _mm_set1_epi8(flip)));
            let (ab, cd) = (_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d));
            let (ab_high, cd_high) = (_mm_unpackhi_epi8(a, b), _mm_unpackhi_epi8(c, d));
            [
                _mm_unpacklo_epi16(ab, cd),
                _mm_unpackhi_epi16(ab, cd),
                _mm_unpacklo_epi16(ab_high, cd_high),
                _mm_unpackhi_epi16(ab_high, cd_high),
            ]
        };
        // SAFETY: as above.
        unsafe { std::mem::transmute::<[__m128i; 4], [[i8; 4]; 16]>(columns) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::array::from_fn(|j| rows.map(|row| row[j] ^ flip))
}

/// Columns done at a time: few enough that the strip of `dst` stays in the L1 cache.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const STRIP: usize = 64;

/// Defines the transposition of a whole panel from that of an `$b × $b` block.
///
/// A panel whose height is not a multiple of the block's is covered by letting the last block overlap its
/// neighbour: the same values are written twice.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! panel {
    ($name:ident, $features:literal, $t:ty, $b:literal, $block:ident, $narrow:path) => {
        /// # Safety
        /// As [`Kernel::transpose`](crate::cpu::gemm::kernel::Kernel::transpose).
        #[target_feature(enable = $features)]
        pub unsafe fn $name(src: *const $t, stride: isize, w: usize, k: usize, dst: *mut $t) {
            if w < $b {
                // SAFETY: the caller's promise.
                return unsafe { $narrow(src, stride, w, k, dst) };
            }
            let whole = k / $b * $b;
            for p0 in (0..whole).step_by(STRIP) {
                for i in (0..w).step_by($b) {
                    let i = i.min(w - $b);
                    for p in (p0..whole.min(p0 + STRIP)).step_by($b) {
                        // SAFETY: rows `i..i + b` are below `w`, columns `p..p + b` below `k`.
                        unsafe { $block(src.offset(i as isize * stride).add(p), stride, w, dst.add(p * w + i)) };
                    }
                }
            }
            // SAFETY: columns `whole..k`.
            unsafe { scalar(src.add(whole), stride, w, k - whole, dst.add(whole * w)) };
        }
    };
}

#[cfg(target_arch = "aarch64")]
pub use neon::{neon_f32, neon_f64};
#[cfg(target_arch = "x86_64")]
pub use x86::{avx2_f32, avx2_f64, avx2_i32};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{STRIP, scalar};
    use std::arch::x86_64::*;

    panel!(avx2_f32, "avx2,fma,f16c", f32, 8, block_8x8_f32, narrow_f32);
    panel!(narrow_f32, "avx2,fma,f16c", f32, 4, block_4x4_f32, scalar);
    panel!(avx2_f64, "avx2,fma,f16c", f64, 4, block_4x4_f64, scalar);

    /// # Safety
    /// As [`Kernel::transpose`](crate::cpu::gemm::kernel::Kernel::transpose).
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn avx2_i32(src: *const i32, stride: isize, w: usize, k: usize, dst: *mut i32) {
        // SAFETY: the caller's promise; 32 bits that are moved, whatever they mean.
        unsafe { avx2_f32(src.cast(), stride, w, k, dst.cast()) }
    }

    /// # Safety
    /// 8 rows of 8 at `src`, `stride` apart, are readable, and 8 rows of 8 at `dst`, `w` apart, writable.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn block_8x8_f32(src: *const f32, stride: isize, w: usize, dst: *mut f32) {
        // SAFETY: the caller's promise.
        let row = |i: isize| unsafe { _mm256_loadu_ps(src.offset(i * stride)) };
        // Rows in pairs: (0,4) (1,5) … so that the 128-bit halves are already in place after the exchange.
        let pair = |i: isize| {
            let (lo, hi) = (row(i), row(i + 4));
            (_mm256_permute2f128_ps::<0x20>(lo, hi), _mm256_permute2f128_ps::<0x31>(lo, hi))
        };
        let (l0, h0) = pair(0);
        let (l1, h1) = pair(1);
        let (l2, h2) = pair(2);
        let (l3, h3) = pair(3);
        let store = |p: usize, v: __m256| {
            // SAFETY: the caller's promise.
            unsafe { _mm256_storeu_ps(dst.add(p * w), v) }
        };
        for (p, [a, b, c, d]) in [(0, [l0, l1, l2, l3]), (4, [h0, h1, h2, h3])] {
            let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
            store(p, _mm256_shuffle_ps::<0x44>(ab, cd));
            store(p + 1, _mm256_shuffle_ps::<0xee>(ab, cd));
            let (ab, cd) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
            store(p + 2, _mm256_shuffle_ps::<0x44>(ab, cd));
            store(p + 3, _mm256_shuffle_ps::<0xee>(ab, cd));
        }
    }

    /// # Safety
    /// 4 rows of 4 at `src`, `stride` apart, are readable, and 4 rows of 4 at `dst`, `w` apart, writable.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn block_4x4_f32(src: *const f32, stride: isize, w: usize, dst: *mut f32) {
        // SAFETY: the caller's promise.
        let row = |i: isize| unsafe { _mm_loadu_ps(src.offset(i * stride)) };
        let (mut a, mut b, mut c, mut d) = (row(0), row(1), row(2), row(3));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        for (p, v) in [a, b, c, d].into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm_storeu_ps(dst.add(p * w), v) };
        }
    }

    /// # Safety
    /// 4 rows of 4 at `src`, `stride` apart, are readable, and 4 rows of 4 at `dst`, `w` apart, writable.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn block_4x4_f64(src: *const f64, stride: isize, w: usize, dst: *mut f64) {
        // SAFETY: the caller's promise.
        let row = |i: isize| unsafe { _mm256_loadu_pd(src.offset(i * stride)) };
        let (a, b, c, d) = (row(0), row(1), row(2), row(3));
        let (ab0, ab1) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
        let (cd0, cd1) = (_mm256_unpacklo_pd(c, d), _mm256_unpackhi_pd(c, d));
        let columns = [
            _mm256_permute2f128_pd::<0x20>(ab0, cd0),
            _mm256_permute2f128_pd::<0x20>(ab1, cd1),
            _mm256_permute2f128_pd::<0x31>(ab0, cd0),
            _mm256_permute2f128_pd::<0x31>(ab1, cd1),
        ];
        for (p, v) in columns.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm256_storeu_pd(dst.add(p * w), v) };
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{STRIP, scalar};
    use std::arch::aarch64::*;

    panel!(neon_f32, "neon", f32, 4, block_4x4_f32, scalar);
    panel!(neon_f64, "neon", f64, 2, block_2x2_f64, scalar);

    /// # Safety
    /// 4 rows of 4 at `src`, `stride` apart, are readable, and 4 rows of 4 at `dst`, `w` apart, writable.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn block_4x4_f32(src: *const f32, stride: isize, w: usize, dst: *mut f32) {
        // SAFETY: the caller's promise; the same 128 bits as two numbers of 64.
        let row = |i: isize| unsafe { vld1q_f32(src.offset(i * stride)) };
        let pairs = |v: float32x4_t| vreinterpretq_f64_f32(v);
        let (a, b, c, d) = (row(0), row(1), row(2), row(3));
        // Columns 0 and 2 of two rows, and columns 1 and 3.
        let (ab_even, ab_odd) = (pairs(vtrn1q_f32(a, b)), pairs(vtrn2q_f32(a, b)));
        let (cd_even, cd_odd) = (pairs(vtrn1q_f32(c, d)), pairs(vtrn2q_f32(c, d)));
        let columns = [
            vtrn1q_f64(ab_even, cd_even),
            vtrn1q_f64(ab_odd, cd_odd),
            vtrn2q_f64(ab_even, cd_even),
            vtrn2q_f64(ab_odd, cd_odd),
        ];
        for (p, v) in columns.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { vst1q_f32(dst.add(p * w), vreinterpretq_f32_f64(v)) };
        }
    }

    /// # Safety
    /// 2 rows of 2 at `src`, `stride` apart, are readable, and 2 rows of 2 at `dst`, `w` apart, writable.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn block_2x2_f64(src: *const f64, stride: isize, w: usize, dst: *mut f64) {
        // SAFETY: the caller's promise.
        let (a, b) = unsafe { (vld1q_f64(src), vld1q_f64(src.offset(stride))) };
        // SAFETY: as above.
        unsafe {
            vst1q_f64(dst, vtrn1q_f64(a, b));
            vst1q_f64(dst.add(w), vtrn2q_f64(a, b));
        }
    }
}
