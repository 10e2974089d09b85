//! Micro-kernels: the innermost loop of the product, one per type and SIMD level.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod simd;
mod transpose;

use crate::cpu::level::{Level, hardware};
pub use transpose::interleave;

/// One micro-tile's operands: `C[i][j] (+)= Σ_p A[i][p] · B[p][j]`.
pub struct Tile<A> {
    /// `A[0][0]`; element `(i, p)` is `a_rs * i + a_cs * p` further on.
    pub a: *const A,
    pub a_rs: isize,
    pub a_cs: isize,
    /// `B[0][0]`; rows are `b_rs` apart, columns are neighbours.
    pub b: *const A,
    pub b_rs: isize,
    pub k: usize,
    /// `C[0][0]`; rows are `ldc` apart, columns are neighbours.
    pub c: *mut A,
    pub ldc: usize,
    /// Add to what `C` holds rather than replace it.
    pub accumulate: bool,
    /// What is added to each of the tile's columns; null for nothing.
    pub bias: *const A,
}

/// See [`Kernel::dot`].
pub type Dot<A> = unsafe fn(row: &[A], x: &[A]) -> A;

/// A micro-kernel and the tile it is made for.
#[derive(Clone, Copy)]
pub struct Kernel<A> {
    /// Rows of the largest tile.
    pub mr: usize,
    /// Columns of the largest tile.
    pub nr: usize,
    /// Computes a tile of `rows ≤ mr` by `cols ≤ nr`.
    ///
    /// # Safety
    /// `1 ≤ rows ≤ mr`, `1 ≤ cols ≤ nr`; every element of `A`, `B` and, unless it is null, `bias` that the tile names is
    /// readable and every element of `C` writable, `C` by nobody else; the CPU has the kernel's instructions.
    pub run: unsafe fn(rows: usize, cols: usize, tile: &Tile<A>),
    /// The dot product of a row with `x`. None where no rows are as the kernel takes them: they are widened on the way
    /// instead.
    ///
    /// # Safety
    /// The CPU has the kernel's instructions.
    pub dot: Option<Dot<A>>,
    /// `dst[p * w + i] = src[i * stride + p]` for `i < w`, `p < k`.
    ///
    /// # Safety
    /// Those elements are readable and writable; the CPU has the kernel's instructions.
    pub transpose: unsafe fn(src: *const A, stride: isize, w: usize, k: usize, dst: *mut A),
}

/// What products are summed in.
pub trait Accumulator: super::element::Rounded<Self> {
    /// Zero.
    const ZERO: Self;
    /// `a · b + c`: fused into one rounding if `FMA`; wrapping for integers.
    fn mul_add<const FMA: bool>(a: Self, b: Self, c: Self) -> Self;
    /// `a + b`; wrapping for integers.
    fn add(a: Self, b: Self) -> Self;
    /// The micro-kernel for a level that this CPU has.
    fn kernel(level: Level) -> Kernel<Self>;
}

/// Whether the plain kernels may use `mul_add`: only where it is one instruction.
const NATIVE_FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

macro_rules! float {
    ($t:ident, $portable:expr) => {
        impl Accumulator for $t {
            const ZERO: Self = 0.0;
            #[inline(always)]
            fn mul_add<const FMA: bool>(a: Self, b: Self, c: Self) -> Self {
                if FMA || NATIVE_FMA { a.mul_add(b, c) } else { a * b + c }
            }
            #[inline(always)]
            fn add(a: Self, b: Self) -> Self {
                a + b
            }
            #[inline]
            fn kernel(level: Level) -> Kernel<Self> {
                match level {
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 => avx512::$t::KERNEL,
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => avx2::$t::KERNEL,
                    #[cfg(target_arch = "aarch64")]
                    _ => neon::$t::KERNEL,
                    #[cfg(not(target_arch = "aarch64"))]
                    _ => $portable,
                }
            }
        }
    };
}
float!(f32, portable::kernel::<f32, 4, 8>());
float!(f64, portable::kernel::<f64, 4, 4>());

macro_rules! integer {
    ($t:ident, $nr:literal) => {
        impl Accumulator for $t {
            const ZERO: Self = 0;
            #[inline(always)]
            fn mul_add<const FMA: bool>(a: Self, b: Self, c: Self) -> Self {
                a.wrapping_mul(b).wrapping_add(c)
            }
            #[inline(always)]
            fn add(a: Self, b: Self) -> Self {
                a.wrapping_add(b)
            }
            #[inline]
            fn kernel(level: Level) -> Kernel<Self> {
                match level {
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 | Level::Avx2 => portable::kernel_avx2::<$t, 4, $nr>(),
                    _ => portable::kernel::<$t, 4, 8>(),
                }
            }
        }
    };
}
integer!(i32, 16);
integer!(i64, 8);
integer!(u8, 32);

/// Whether this CPU multiplies pairs of bf16, at this level.
pub fn has_bf16_pairs(level: Level) -> bool {
    #[cfg(target_arch = "x86_64")]
    return level == Level::Avx512 && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    return level > Level::Avx512;
}

/// The micro-kernel of packed pairs, where [`has_bf16_pairs`].
pub fn bf16_pairs(level: Level) -> Kernel<f32> {
    assert!(has_bf16_pairs(level), "gemm: this CPU has no bf16 products");
    #[cfg(target_arch = "x86_64")]
    return avx512::pairs::f32::KERNEL;
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("checked above")
}

/// Whether this CPU multiplies fours of 8-bit integers, at this level.
pub fn has_i8_quads(level: Level) -> bool {
    #[cfg(target_arch = "x86_64")]
    return level == Level::Avx512 && is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    return level > Level::Avx512;
}

/// The micro-kernel of packed fours of 8-bit integers, where [`has_i8_quads`].
pub fn i8_quads(level: Level) -> Kernel<i32> {
    assert!(has_i8_quads(level), "gemm: this CPU has no int8 products");
    #[cfg(target_arch = "x86_64")]
    return avx512::quads::i32::KERNEL;
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("checked above")
}

/// `sums[j] −= 128 · Σ` of the bytes of column `j` of a packed block of fours; where [`has_i8_quads`].
pub fn take_off_128(panels: &[i32], steps: usize, width: usize, sums: &mut [i32]) {
    assert!(has_i8_quads(hardware()), "gemm: this CPU has no int8 products");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: checked above.
    return unsafe { avx512::quads::take_off_128(panels, steps, width, sums) };
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("checked above, for {} of {steps} × {width} and {}", panels.len(), sums.len())
}

/// The micro-kernel of packed pairs of 16-bit integers.
pub fn i16_pairs(level: Level) -> Kernel<i32> {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::words::i32::KERNEL,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::words::i32::KERNEL,
        _ => portable::kernel_of::<i32, portable::Words, 4, 8>(),
    }
}
