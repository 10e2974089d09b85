//! The scalars of the attention and recurrent kernels, and attention's elementwise loops over contiguous slices.
//!
//! The rows' loops around them (`online_softmax`, `row_gradient`, `cell_forward`, `cell_backward`) take slices and nothing
//! else, and everything they call is inlined into them.
//! Reductions keep `LANES` partial results, so their order is fixed by the length alone and the compiler can keep
//! them in vector registers.

use super::gemm::{Accumulator, GemmElement};
use super::math::Real;
use super::simd::Simd;

/// The scalars that the attention and recurrent kernels compute in: `f32` and `f64`. Half types are converted by the
/// caller.
pub trait SeqFloat:
    GemmElement<Acc = Self> + Accumulator + num_traits::Float + num_traits::NumAssign + bytemuck::Pod + Real
{
}
impl SeqFloat for f32 {}
impl SeqFloat for f64 {}

/// Partial results of a reduction.
const LANES: usize = 16;

/// `x` in type `T`.
#[inline(always)]
pub(super) fn real<T: SeqFloat>(x: f64) -> T {
    T::from(x).expect("an f64 converts to every float type")
}

/// `max xᵢ`, `-∞` for an empty slice. NaN is passed over: the sum of exponentials that follows brings it back.
#[inline(always)]
pub(super) fn max<T: SeqFloat>(x: &[T]) -> T {
    let mut lanes = [T::neg_infinity(); LANES];
    let mut chunks = x.chunks_exact(LANES);
    for c in &mut chunks {
        for (m, &v) in lanes.iter_mut().zip(c) {
            *m = if v > *m { v } else { *m };
        }
    }
    lanes.iter().chain(chunks.remainder()).fold(T::neg_infinity(), |m, &v| if v > m { v } else { m })
}

/// `Σ xᵢ`.
#[inline(always)]
pub(super) fn sum<T: SeqFloat>(x: &[T]) -> T {
    let mut lanes = [T::zero(); LANES];
    let mut chunks = x.chunks_exact(LANES);
    for c in &mut chunks {
        for (s, &v) in lanes.iter_mut().zip(c) {
            *s += v;
        }
    }
    lanes.iter().chain(chunks.remainder()).fold(T::zero(), |s, &v| s + v)
}

/// `Σ xᵢ yᵢ`.
#[inline(always)]
pub(super) fn dot<T: SeqFloat>(x: &[T], y: &[T]) -> T {
    let mut lanes = [T::zero(); LANES];
    let (mut xs, mut ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    for (a, b) in (&mut xs).zip(&mut ys) {
        for (s, (&a, &b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *s += a * b;
        }
    }
    let tail = xs.remainder().iter().zip(ys.remainder()).fold(T::zero(), |s, (&a, &b)| s + a * b);
    lanes.iter().fold(tail, |s, &v| s + v)
}

/// `x ← factor · x`.
#[inline(always)]
pub(super) fn scale<T: SeqFloat>(x: &mut [T], factor: T) {
    for v in x {
        *v *= factor;
    }
}

/// `x ← exp(x - shift)`.
#[inline(always)]
pub(super) fn exp_shifted<S: Simd, T: SeqFloat>(x: &mut [T], shift: T) {
    for v in x {
        *v = Real::exp::<S>(*v - shift);
    }
}

/// Splits the first `len` elements off the front of `rest`.
pub(super) fn take_front<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (front, back) = std::mem::take(rest).split_at_mut(len);
    *rest = back;
    front
}
