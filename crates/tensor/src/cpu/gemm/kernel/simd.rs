//! The micro-kernel with explicit SIMD, written once for every vector type.

/// Defines a module with the [`Kernel`](super::Kernel) of one element type at one SIMD level.
///
/// `C` is row-major, so vectors run along its columns: a tile is `R` rows of `NV` vectors, all in registers. Each step
/// in `k` loads one row of `B` (`NV` vectors), and for each of the `R` rows broadcasts one element of `A` and does `NV`
/// fused multiply-adds: `R + NV` loads for `R · NV` FMAs.
///
/// `R` and `NV` are compile-time constants, so an edge tile is as fast as its size allows and nothing is padded.
/// `A` may have any strides and `B` any row stride, so that small matrices need no packing.
macro_rules! simd_kernel {
    ($t:ident, $features:literal, $ops:ident, $mr:literal, [$($r:literal)*], [$($i:literal)*], $dot:expr, $transpose:ident) => {
        pub mod $t {
            use super::$ops as ops;
            use crate::cpu::gemm::kernel::{Kernel, Tile, transpose};
            use crate::cpu::simd::prefetch;

            /// The kernel of this type at this level.
            pub const KERNEL: Kernel<$t> = Kernel { mr: $mr, nr: 2 * ops::LANES, run, dot: $dot, transpose: transpose::$transpose };

            /// # Safety
            /// As [`Kernel::run`].
            unsafe fn run(rows: usize, cols: usize, t: &Tile<$t>) {
                // SAFETY: the caller's promise is this function's; `rows` and `cols` select the tile's constants.
                unsafe {
                    match (rows, cols.div_ceil(ops::LANES), cols % ops::LANES == 0) {
                        $(
                            ($r, 2, true) => tile::<$r, 2, true>(cols, t),
                            ($r, 2, false) => tile::<$r, 2, false>(cols, t),
                            ($r, 1, _) => tile::<$r, 1, false>(cols, t),
                        )*
                        _ => unreachable!("a {rows}×{cols} tile for a kernel of {}×{}", $mr, 2 * ops::LANES),
                    }
                }
            }

            /// # Safety
            /// As [`Kernel::run`] with `rows == R` and `(NV - 1) * LANES < cols <= NV * LANES`, equal if `FULL`.
            #[target_feature(enable = $features)]
            unsafe fn tile<const R: usize, const NV: usize, const FULL: bool>(cols: usize, t: &Tile<$t>) {
                let last = ops::mask(cols - (NV - 1) * ops::LANES);
                let full = |j: usize| FULL || j + 1 < NV;
                let (rs, cs) = (t.a_rs, t.a_cs);
                for i in 0..R {
                    prefetch(t.c.wrapping_add(i * t.ldc), 1);
                    prefetch(t.c.wrapping_add(i * t.ldc + cols - 1), 1);
                }
                let mut acc = [[ops::zero(); NV]; $mr];
                // Row i is at `a[i / 3] + (i % 3) * rs`: base + {0, 1, 2} * index is one x86 address, and five bases
                // fit the integer registers where fourteen row pointers would not.
                let mut a = [t.a; $mr / 3 + 1];
                for (g, a) in a.iter_mut().enumerate() {
                    *a = a.wrapping_offset(3 * g as isize * rs);
                }
                let mut b = t.b;
                for _ in 0..t.k {
                    let mut bv = [ops::zero(); NV];
                    for j in 0..NV {
                        // SAFETY: columns below `cols` of a row of `B` below `k`; the mask hides the others.
                        bv[j] = unsafe {
                            if full(j) { ops::load(b.add(j * ops::LANES)) } else { ops::load_mask(b.add(j * ops::LANES), last) }
                        };
                    }
                    // What is read where it lies jumps from page to page, which the hardware does not foresee.
                    let ahead = b.wrapping_offset(8 * t.b_rs);
                    for j in 0..NV {
                        prefetch(ahead.wrapping_add(j * ops::LANES), 1);
                    }
                    // Unrolled by hand: the compiler gives up before fourteen rows, and then keeps `acc` in memory.
                    $(
                        if $i < R {
                            // SAFETY: a row below `R` and a column below `k` of `A`.
                            let ai = ops::splat(unsafe { *a[$i / 3].offset(($i % 3) * rs) });
                            for j in 0..NV {
                                acc[$i][j] = ops::fma(ai, bv[j], acc[$i][j]);
                            }
                        }
                    )*
                    for a in a.iter_mut() {
                        *a = a.wrapping_offset(cs);
                    }
                    b = b.wrapping_offset(t.b_rs);
                }
                if !t.bias.is_null() {
                    for j in 0..NV {
                        let at = t.bias.wrapping_add(j * ops::LANES);
                        // SAFETY: columns below `cols` of the bias; the mask hides the others.
                        let bias = unsafe { if full(j) { ops::load(at) } else { ops::load_mask(at, last) } };
                        for row in acc.iter_mut().take(R) {
                            row[j] = ops::add(row[j], bias);
                        }
                    }
                }
                $(
                    if $i < R {
                        for j in 0..NV {
                            // SAFETY: the tile's own elements of `C`; the mask hides columns past `cols`.
                            unsafe {
                                let c = t.c.add($i * t.ldc + j * ops::LANES);
                                let mut v = acc[$i][j];
                                if t.accumulate {
                                    v = ops::add(if full(j) { ops::load(c) } else { ops::load_mask(c, last) }, v);
                                }
                                if full(j) { ops::store(c, v) } else { ops::store_mask(c, last, v) }
                            }
                        }
                    }
                )*
            }
        }
    };
}

/// Defines a module with [`Kernel::dot`](super::Kernel::dot) of one element type at one SIMD level.
macro_rules! simd_dot {
    ($name:ident, $t:ident, $features:literal, $ops:ident) => {
        mod $name {
            use super::$ops as ops;

            /// Running sums: so many chains cover the latency of the FMA.
            const CHAINS: usize = 4;

            /// # Safety
            /// As [`Kernel::dot`].
            #[target_feature(enable = $features)]
            pub unsafe fn dot(row: &[$t], x: &[$t]) -> $t {
                assert_eq!(row.len(), x.len());
                let mut acc = [ops::zero(); CHAINS];
                let step = CHAINS * ops::LANES;
                let whole = x.len() / step * step;
                for p in (0..whole).step_by(step) {
                    for (v, acc) in acc.iter_mut().enumerate() {
                        let p = p + v * ops::LANES;
                        // SAFETY: `p + LANES` is at most the length of `x` and of the row.
                        *acc = unsafe { ops::fma(ops::load(row.as_ptr().add(p)), ops::load(x.as_ptr().add(p)), *acc) };
                    }
                }
                for (acc, p) in acc.iter_mut().zip((whole..x.len()).step_by(ops::LANES)) {
                    let mask = ops::mask((x.len() - p).min(ops::LANES));
                    // SAFETY: the mask hides what is past the end.
                    let (r, x) =
                        unsafe { (ops::load_mask(row.as_ptr().add(p), mask), ops::load_mask(x.as_ptr().add(p), mask)) };
                    *acc = ops::fma(r, x, *acc);
                }
                let sum = ops::add(ops::add(acc[0], acc[1]), ops::add(acc[2], acc[3]));
                let mut lanes = [0.0; ops::LANES];
                // SAFETY: `lanes` is one vector long.
                unsafe { ops::store(lanes.as_mut_ptr(), sum) };
                let mut width = ops::LANES / 2;
                while width > 0 {
                    for l in 0..width {
                        lanes[l] += lanes[l + width];
                    }
                    width /= 2;
                }
                lanes[0]
            }
        }
    };
}

/// Defines a module of one-instruction functions of x86-64, so that the kernel's text is the same for every vector type.
#[cfg(target_arch = "x86_64")]
macro_rules! simd_ops {
    ($name:ident, $features:literal, $t:ident, $v:ident, $m:ident, $lanes:literal, $zero:ident, $splat:ident,
     |$a:ident, $b:ident, $c:ident| $fma:expr, $add:ident, |$l:ident| $load:expr, |$s:ident, $sv:ident| $store:expr, |$n:ident| $mask:expr, |$p:ident, $pm:ident| $load_mask:expr,
     |$q:ident, $qm:ident, $qv:ident| $store_mask:expr) => {
        mod $name {
            use std::arch::x86_64::*;

            pub type V = $v;
            pub type Mask = $m;
            pub const LANES: usize = $lanes;

            #[inline]
            #[target_feature(enable = $features)]
            pub fn zero() -> V {
                $zero()
            }
            #[inline]
            #[target_feature(enable = $features)]
            pub fn splat(x: $t) -> V {
                $splat(x)
            }
            #[inline]
            #[target_feature(enable = $features)]
            pub fn fma($a: V, $b: V, $c: V) -> V {
                $fma
            }
            #[inline]
            #[target_feature(enable = $features)]
            pub fn add(a: V, b: V) -> V {
                $add(a, b)
            }
            /// The first `n` lanes.
            #[inline]
            #[target_feature(enable = $features)]
            pub fn mask($n: usize) -> Mask {
                $mask
            }
            /// # Safety
            /// `LANES` elements at `p` are readable.
            #[inline]
            #[target_feature(enable = $features)]
            pub unsafe fn load($l: *const $t) -> V {
                // SAFETY: the caller's promise.
                unsafe { $load }
            }
            /// # Safety
            /// `LANES` elements at `p` are writable.
            #[inline]
            #[target_feature(enable = $features)]
            pub unsafe fn store($s: *mut $t, $sv: V) {
                // SAFETY: the caller's promise.
                unsafe { $store }
            }
            /// # Safety
            /// The masked elements at `p` are readable.
            #[inline]
            #[target_feature(enable = $features)]
            pub unsafe fn load_mask($p: *const $t, $pm: Mask) -> V {
                // SAFETY: the caller's promise; lanes outside the mask are not touched.
                unsafe { $load_mask }
            }
            /// # Safety
            /// The masked elements at `p` are writable.
            #[inline]
            #[target_feature(enable = $features)]
            pub unsafe fn store_mask($q: *mut $t, $qm: Mask, $qv: V) {
                // SAFETY: the caller's promise; lanes outside the mask are not touched.
                unsafe { $store_mask }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub(super) use simd_ops;
pub(super) use {simd_dot, simd_kernel};
