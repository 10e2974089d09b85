//! The simple recurrent network of Elman (1990) over a sequence, forward and backward.

use super::gemm::MatRef;
use super::level::level;
use super::recurrence::{Recurrence, UpstreamGradients, start, zero_after_end};
use super::scratch::with_scratch;
use super::seq_math::{SeqFloat, tanh_at};
use crate::cpu::parallel::*;

/// The activation of a simple recurrent network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RnnActivation {
    /// `tanh`.
    Tanh,
    /// `max(0, x)`.
    Relu,
}

/// `hₜ = act(gxₜ + W_hh hₜ₋₁)`, with `gx = W_ih x + b_ih + b_hh` made by the caller in one product over all of time.
///
/// `hs` `[T, B, H]` holds `gx` on entry and the outputs on return. `h0` is the state before the first step, `h_n` (`[B,
/// H]` both) receives the one after the last. The rows of a batch are dealt out to the threads, which then need not
/// wait for each other until the end of time; the result does not depend on their number.
///
/// # Panics
/// If an array has the wrong length.
pub fn rnn_forward<T: SeqFloat>(seq: &Recurrence<T>, act: RnnActivation, hs: &mut [T], h0: &[T], h_n: &mut [T]) {
    seq.check(1);
    let h = seq.h;
    start(h_n, Some(h0));
    let pieces = seq.pieces();
    let weights = seq.transposed_weights();
    let (hs, h_n) = (seq.split(hs, h, &pieces), seq.split_rows(h_n, h, &pieces));
    let parallel = pieces.len() == 1;
    let tasks: Vec<_> = pieces.iter().zip(hs).zip(h_n).collect();
    tasks.into_par_iter().with_max_len(1).for_each(|((rows, mut hs), state)| {
        with_scratch(seq.mask_scratch(rows), |masked: &mut [T]| {
            for t in seq.steps(rows) {
                let x = seq.recurrent_input(rows, state, masked);
                weights.product(rows.len(), x, hs[t], h, true, parallel);
                for (n, _) in seq.active(rows, t) {
                    let out = &mut hs[t][n * h..(n + 1) * h];
                    match act {
                        RnnActivation::Tanh => tanh_at(level(), out),
                        RnnActivation::Relu => {
                            out.iter_mut().for_each(|x| *x = if *x <= T::zero() { T::zero() } else { *x })
                        }
                    }
                    state[n * h..(n + 1) * h].copy_from_slice(out);
                }
            }
        });
        zero_after_end(seq, rows, &mut hs, h);
    });
}

/// The gradients that [`rnn_backward`] writes. They need not be initialised.
pub struct RnnGradients<'a, T> {
    /// Of the input's part of the activations `[T, B, H]`.
    pub d_gx: &'a mut [T],
    /// Of the first state `[B, H]`.
    pub d_h0: &'a mut [T],
    /// Of the recurrent weights `[H, H]`.
    pub d_w_hh: &'a mut [T],
}

/// The gradients of [`rnn_forward`], from its outputs `hs` and its first state:
///
/// ```text
/// dgxₜ = (dhsₜ + dhₜ) ∘ act'(hₜ)        dhₜ₋₁ = W_hhᵀ dgxₜ        dW_hh = Σₜ dgxₜ hₜ₋₁ᵀ
/// ```
///
/// with `tanh' = 1 - h²` and `relu' = [h > 0]`.
///
/// # Panics
/// If an array has the wrong length.
pub fn rnn_backward<T: SeqFloat>(
    seq: &Recurrence<T>,
    act: RnnActivation,
    hs: &[T],
    h0: &[T],
    upstream: &UpstreamGradients<T>,
    gradients: RnnGradients<T>,
) {
    seq.check(1);
    let Recurrence { b, h, .. } = *seq;
    let RnnGradients { d_gx, d_h0, d_w_hh } = gradients;
    start(d_h0, upstream.d_hn);
    let weights = seq.weights(0..h);
    let pieces = seq.pieces();
    let parallel = pieces.len() == 1;
    let (d_gx_split, d_h0) = (seq.split(d_gx, h, &pieces), seq.split_rows(d_h0, h, &pieces));
    let tasks: Vec<_> = pieces.iter().zip(d_gx_split).zip(d_h0).collect();
    tasks.into_par_iter().with_max_len(1).for_each(|((rows, mut d_gx), dh)| {
        zero_after_end(seq, rows, &mut d_gx, h);
        with_scratch(rows.len() * h, |product: &mut [T]| {
            for t in seq.steps(rows).rev() {
                for (n, r) in seq.active(rows, t) {
                    let at = (t * b + r) * h;
                    let (d, dh) = (&mut d_gx[t][n * h..(n + 1) * h], &dh[n * h..(n + 1) * h]);
                    d.copy_from_slice(dh);
                    if let Some(d_hs) = upstream.d_hs {
                        d.iter_mut().zip(&d_hs[at..at + h]).for_each(|(d, &x)| *d += x);
                    }
                    for (d, &y) in d.iter_mut().zip(&hs[at..at + h]) {
                        *d = match act {
                            RnnActivation::Tanh => *d * (T::one() - y * y),
                            RnnActivation::Relu => {
                                if y <= T::zero() {
                                    T::zero()
                                } else {
                                    *d
                                }
                            }
                        };
                    }
                }
                weights.product(rows.len(), MatRef::row_major(d_gx[t], h), product, h, false, parallel);
                for (n, r) in seq.active(rows, t) {
                    let product = &mut product[n * h..(n + 1) * h];
                    seq.mask_row(r, product);
                    dh[n * h..(n + 1) * h].copy_from_slice(product);
                }
            }
        });
    });
    seq.weight_gradient(d_gx, h, h, hs, h0, d_w_hh);
}
