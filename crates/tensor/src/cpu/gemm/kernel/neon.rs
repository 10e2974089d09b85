//! NEON, which every aarch64 has: tiles of 12 rows × 2 vectors. 24 of the 32 registers hold the tile, 2 a row of `B`, and the
//! others elements of `A`, so that several are on their way at a time.

use super::simd::{simd_dot, simd_kernel};

/// Defines a module of one-instruction functions, as `simd_ops!` does for x86-64. A mask is a number of lanes: NEON has no
/// masked loads and stores, and the edge of a tile goes lane by lane.
macro_rules! neon_ops {
    ($name:ident, $t:ident, $v:ident, $lanes:literal, $splat:ident, $fma:ident, $add:ident, $load:ident, $store:ident) => {
        mod $name {
            use std::arch::aarch64::*;

            pub type V = $v;
            pub type Mask = usize;
            pub const LANES: usize = $lanes;

            #[inline]
            #[target_feature(enable = "neon")]
            pub fn zero() -> V {
                $splat(0.0)
            }
            #[inline]
            #[target_feature(enable = "neon")]
            pub fn splat(x: $t) -> V {
                $splat(x)
            }
            #[inline]
            #[target_feature(enable = "neon")]
            pub fn fma(a: V, b: V, c: V) -> V {
                $fma(c, a, b)
            }
            #[inline]
            #[target_feature(enable = "neon")]
            pub fn add(a: V, b: V) -> V {
                $add(a, b)
            }
            /// The first `n` lanes.
            #[inline]
            #[target_feature(enable = "neon")]
            pub fn mask(n: usize) -> Mask {
                n
            }
            /// # Safety
            /// `LANES` elements at `p` are readable.
            #[inline]
            #[target_feature(enable = "neon")]
            pub unsafe fn load(p: *const $t) -> V {
                // SAFETY: the caller's promise.
                unsafe { $load(p) }
            }
            /// # Safety
            /// `LANES` elements at `p` are writable.
            #[inline]
            #[target_feature(enable = "neon")]
            pub unsafe fn store(p: *mut $t, v: V) {
                // SAFETY: the caller's promise.
                unsafe { $store(p, v) }
            }
            /// # Safety
            /// The masked elements at `p` are readable.
            #[inline]
            #[target_feature(enable = "neon")]
            pub unsafe fn load_mask(p: *const $t, mask: Mask) -> V {
                let mut lanes = [0.0; LANES];
                for (l, lane) in lanes.iter_mut().enumerate().take(mask) {
                    // SAFETY: the caller's promise: a lane of the mask.
                    *lane = unsafe { *p.add(l) };
                }
                // SAFETY: `lanes` is one vector long.
                unsafe { $load(lanes.as_ptr()) }
            }
            /// # Safety
            /// The masked elements at `p` are writable.
            #[inline]
            #[target_feature(enable = "neon")]
            pub unsafe fn store_mask(p: *mut $t, mask: Mask, v: V) {
                let mut lanes = [0.0; LANES];
                // SAFETY: `lanes` is one vector long.
                unsafe { $store(lanes.as_mut_ptr(), v) };
                for (l, &lane) in lanes.iter().enumerate().take(mask) {
                    // SAFETY: the caller's promise: a lane of the mask.
                    unsafe { *p.add(l) = lane };
                }
            }
        }
    };
}
neon_ops!(q_f32, f32, float32x4_t, 4, vdupq_n_f32, vfmaq_f32, vaddq_f32, vld1q_f32, vst1q_f32);
neon_ops!(q_f64, f64, float64x2_t, 2, vdupq_n_f64, vfmaq_f64, vaddq_f64, vld1q_f64, vst1q_f64);
simd_dot!(dot_f32, f32, "neon", q_f32);
simd_dot!(dot_f64, f64, "neon", q_f64);
simd_kernel!(f32, "neon", q_f32, 12, [1 2 3 4 5 6 7 8 9 10 11 12], [0 1 2 3 4 5 6 7 8 9 10 11], Some(super::dot_f32::dot), neon_f32);
simd_kernel!(f64, "neon", q_f64, 12, [1 2 3 4 5 6 7 8 9 10 11 12], [0 1 2 3 4 5 6 7 8 9 10 11], Some(super::dot_f64::dot), neon_f64);
