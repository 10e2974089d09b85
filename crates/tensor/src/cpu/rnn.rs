//! The simple recurrent network of Elman (1990) over a sequence.

use super::level::level;
use super::math::Real;
use super::seq_math::SeqFloat;
use super::simd::simd_fn;
use super::through_time::{Block, Cell, Step};
use crate::ops::rnn::RnnNonlinearity;

/// `hₜ = act(W_hh hₜ₋₁ + W_ih xₜ + b)`, and backward
///
/// ```text
/// d = (dhsₜ + dhₜ) ∘ act'(hₜ)        [dhₜ₋₁ ; dxₜ] = Wᵀ d        dW = Σₜ d [hₜ₋₁ ; xₜ]ᵀ        db = Σₜ d
/// ```
///
/// with `tanh' = 1 - h²` and `relu' = [h > 0]`. The outputs are the activated gates: nothing else is saved.
#[derive(Clone, Copy)]
pub(super) struct Rnn(pub RnnNonlinearity);

impl<T: SeqFloat> Cell<T> for Rnn {
    const GATES: usize = 1;
    const SUMS: usize = 1;
    const CELL: bool = false;
    fn blocks(self, h: usize, e: usize) -> Vec<Block> {
        Block::whole(h, h + e)
    }
    fn forward(self, sums: &mut [T], state: &mut [T], _: &mut [T], hs: &mut [T], _: &mut [T], z: &mut [T]) {
        match self.0 {
            RnnNonlinearity::Tanh => tanh_forward(level(), sums, state, hs, z),
            RnnNonlinearity::Relu => relu_forward(level(), sums, state, hs, z),
        }
    }
    fn backward(self, step: &Step<T>, dh: &mut [T], _: &mut [T], d: &mut [T]) {
        match self.0 {
            RnnNonlinearity::Tanh => tanh_backward(level(), step.h, dh, d),
            RnnNonlinearity::Relu => relu_backward(level(), step.h, dh, d),
        }
    }
}

simd_fn! {
    fn tanh_forward[S]<T: SeqFloat>(sums: &[T], state: &mut [T], hs: &mut [T], z: &mut [T]) {
        activate(sums, state, hs, z, Real::tanh::<S>);
    }
}
simd_fn! {
    fn relu_forward[S]<T: SeqFloat>(sums: &[T], state: &mut [T], hs: &mut [T], z: &mut [T]) {
        activate(sums, state, hs, z, |x| if x <= T::zero() { T::zero() } else { x });
    }
}
simd_fn! {
    fn tanh_backward[S]<T: SeqFloat>(h: &[T], dh: &mut [T], d: &mut [T]) {
        differentiate(h, dh, d, |d, y| d * (T::one() - y * y));
    }
}
simd_fn! {
    fn relu_backward[S]<T: SeqFloat>(h: &[T], dh: &mut [T], d: &mut [T]) {
        differentiate(h, dh, d, |d, y| if y <= T::zero() { T::zero() } else { d });
    }
}

#[inline(always)]
fn activate<T: SeqFloat>(sums: &[T], state: &mut [T], hs: &mut [T], z: &mut [T], act: impl Fn(T) -> T) {
    for (((&x, state), hs), z) in sums.iter().zip(state).zip(hs).zip(z) {
        let y = act(x);
        (*state, *hs, *z) = (y, y, y);
    }
}

/// The state before is reached through the sums alone.
#[inline(always)]
fn differentiate<T: SeqFloat>(h: &[T], dh: &mut [T], d: &mut [T], derivative: impl Fn(T, T) -> T) {
    for ((&y, dh), d) in h.iter().zip(dh).zip(d) {
        *d = derivative(*dh, y);
        *dh = T::zero();
    }
}
