//! The long short-term memory over a sequence, forward and backward.

use super::gemm::MatRef;
use super::level::level;
use super::recurrence::{Recurrence, UpstreamGradients, optional, start, zero_after_end};
use super::seq_math::{SeqFloat, sigmoid, tanh, tanh_at, with_scratch};
use super::simd::simd_fn;
use rayon::prelude::*;

/// Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000), PyTorch's
/// equations and order of gates:
///
/// ```text
/// [i f g o] = [σ σ tanh σ](gxₜ + W_hh hₜ₋₁)        cₜ = f ∘ cₜ₋₁ + i ∘ g        hₜ = o ∘ tanh(cₜ)
/// ```
///
/// `gates` `[T, B, 4H]` holds `gx = W_ih x + b_ih + b_hh` on entry (one product over all of time, made by the caller)
/// and the activated gates on return; `cells` `[T, B, H]` receives the `cₜ` and is only needed for the backward pass.
/// `h0` and `c0` `[B, H]` are the state before the first step, `h_n` and `c_n` receive the one after the last, `hs`
/// `[T, B, H]` the outputs. Where a row has ended, its outputs and cells are zero and its gates mean nothing.
///
/// The rows of a batch are dealt out to the threads, which then need not wait for each other until the end of time; the
/// result does not depend on their number. A step is one matrix product and one pass over the gates.
///
/// # Panics
/// If an array has the wrong length.
pub fn lstm_forward<T: SeqFloat>(
    seq: &Recurrence<T>,
    gates: &mut [T],
    (h0, c0): (&[T], &[T]),
    hs: &mut [T],
    cells: Option<&mut [T]>,
    (h_n, c_n): (&mut [T], &mut [T]),
) {
    seq.check(4);
    let h = seq.h;
    start(h_n, Some(h0));
    start(c_n, Some(c0));
    let pieces = seq.pieces();
    let weights = seq.transposed_weights();
    let parallel = pieces.len() == 1;
    let gates = seq.split(gates, 4 * h, &pieces);
    let hs = seq.split(hs, h, &pieces);
    let cells = optional(cells, pieces.len(), |cells| seq.split(cells, h, &pieces));
    let states = seq.split_rows(h_n, h, &pieces).into_iter().zip(seq.split_rows(c_n, h, &pieces));
    let tasks: Vec<_> = pieces.iter().zip(gates).zip(hs).zip(cells).zip(states).collect();
    tasks.into_par_iter().with_max_len(1).for_each(|((((rows, mut gates), mut hs), mut cells), (state, cell))| {
        with_scratch(seq.mask_scratch(rows), |masked: &mut [T]| {
            for t in seq.steps(rows) {
                let x = seq.recurrent_input(rows, state, masked);
                weights.product(rows.len(), x, gates[t], 4 * h, true, parallel);
                for (n, _) in seq.active(rows, t) {
                    let own = n * h..(n + 1) * h;
                    let (state, cell) = (&mut state[own.clone()], &mut cell[own.clone()]);
                    cell_forward(level(), &mut gates[t][4 * n * h..4 * (n + 1) * h], state, cell);
                    hs[t][own.clone()].copy_from_slice(state);
                    if let Some(cells) = cells.get_mut(t) {
                        cells[own].copy_from_slice(cell);
                    }
                }
            }
        });
        zero_after_end(seq, rows, &mut hs, h);
        zero_after_end(seq, rows, &mut cells, h);
    });
}

simd_fn! {
    /// One row of one step: `gates` `[4H]` goes from sums to activations, `c` and `h` to the next state.
    fn cell_forward[S]<T: SeqFloat>(gates: &mut [T], h: &mut [T], c: &mut [T]) {
        let n = h.len();
        sigmoid::<S, T>(&mut gates[..2 * n]);
        tanh::<S, T>(&mut gates[2 * n..3 * n]);
        sigmoid::<S, T>(&mut gates[3 * n..]);
        let ([i, f], [g, o]) = halves(gates, n);
        for k in 0..n {
            c[k] = f[k] * c[k] + i[k] * g[k];
        }
        h.copy_from_slice(c);
        tanh::<S, T>(h);
        h.iter_mut().zip(o).for_each(|(h, &o)| *h *= o);
    }
}

/// `[i, f]` and `[g, o]` of a row of gates.
#[inline(always)]
fn halves<T>(gates: &[T], n: usize) -> ([&[T]; 2], [&[T]; 2]) {
    let (left, right) = gates.split_at(2 * n);
    (left.split_at(n).into(), right.split_at(n).into())
}

/// What [`lstm_forward`] was given and what it made, for the backward pass.
#[derive(Clone, Copy)]
pub struct LstmSaved<'a, T> {
    /// The activated gates `[T, B, 4H]`.
    pub gates: &'a [T],
    /// The cells `[T, B, H]`.
    pub cells: &'a [T],
    /// The outputs `[T, B, H]`.
    pub hs: &'a [T],
    /// The first state `[B, H]`.
    pub h0: &'a [T],
    /// The first cell `[B, H]`.
    pub c0: &'a [T],
}

/// The gradients that [`lstm_backward`] writes. They need not be initialised.
pub struct LstmGradients<'a, T> {
    /// Of the input's part of the gates `[T, B, 4H]`; its sum over `T` and `B` is the gradient of either bias.
    pub d_gx: &'a mut [T],
    /// Of the first state `[B, H]`.
    pub d_h0: &'a mut [T],
    /// Of the first cell `[B, H]`.
    pub d_c0: &'a mut [T],
    /// Of the recurrent weights `[4H, H]`.
    pub d_w_hh: &'a mut [T],
}

/// The gradients of [`lstm_forward`]: backpropagation through time,
///
/// ```text
/// dh = dhsₜ + dhₜ                                  dc = dcₜ + dh ∘ o ∘ (1 - tanh² cₜ)
/// di = dc ∘ g ∘ i(1 - i)      df = dc ∘ cₜ₋₁ ∘ f(1 - f)      dg = dc ∘ i ∘ (1 - g²)      do = dh ∘ tanh(cₜ) ∘ o(1 - o)
/// dcₜ₋₁ = dc ∘ f              dhₜ₋₁ = W_hhᵀ [di df dg do]     dW_hh = Σₜ [di df dg do] hₜ₋₁ᵀ
/// ```
///
/// where the sum over time is one matrix product at the end.
///
/// # Panics
/// If an array has the wrong length.
pub fn lstm_backward<T: SeqFloat>(
    seq: &Recurrence<T>,
    saved: &LstmSaved<T>,
    upstream: &UpstreamGradients<T>,
    gradients: LstmGradients<T>,
) {
    seq.check(4);
    let Recurrence { b, h, .. } = *seq;
    let LstmGradients { d_gx, d_h0, d_c0, d_w_hh } = gradients;
    start(d_h0, upstream.d_hn);
    start(d_c0, upstream.d_cn);
    let weights = seq.weights(0..4 * h);
    let pieces = seq.pieces();
    let parallel = pieces.len() == 1;
    let d_gates = seq.split(d_gx, 4 * h, &pieces);
    let states = seq.split_rows(d_h0, h, &pieces).into_iter().zip(seq.split_rows(d_c0, h, &pieces));
    let tasks: Vec<_> = pieces.iter().zip(d_gates).zip(states).collect();
    tasks.into_par_iter().with_max_len(1).for_each(|((rows, mut d_gates), (dh, dc))| {
        zero_after_end(seq, rows, &mut d_gates, 4 * h);
        with_scratch((rows.len() + 1) * h, |scratch: &mut [T]| {
            let (product, tanh_c) = scratch.split_at_mut(rows.len() * h);
            for t in seq.steps(rows).rev() {
                for (n, r) in seq.active(rows, t) {
                    let (at, own) = ((t * b + r) * h, n * h..(n + 1) * h);
                    let (dh, dc) = (&mut dh[own.clone()], &mut dc[own]);
                    if let Some(d_hs) = upstream.d_hs {
                        dh.iter_mut().zip(&d_hs[at..at + h]).for_each(|(d, &x)| *d += x);
                    }
                    tanh_c.copy_from_slice(&saved.cells[at..at + h]);
                    tanh_at(level(), tanh_c);
                    let before = seq.before(saved.cells, saved.c0, t, r);
                    let d = &mut d_gates[t][4 * n * h..4 * (n + 1) * h];
                    cell_backward(level(), &saved.gates[4 * at..4 * (at + h)], tanh_c, before, dh, dc, d);
                }
                let d = MatRef::row_major(d_gates[t], 4 * h);
                weights.product(rows.len(), d, product, h, false, parallel);
                for (n, r) in seq.active(rows, t) {
                    let product = &mut product[n * h..(n + 1) * h];
                    seq.mask_row(r, product);
                    dh[n * h..(n + 1) * h].copy_from_slice(product);
                }
            }
        });
    });
    seq.weight_gradient(d_gx, 4 * h, 4 * h, saved.hs, saved.h0, d_w_hh);
}

simd_fn! {
    /// One row of one step: `d` `[4H]` receives the gates' gradients, `dc` goes to the cell before.
    fn cell_backward[S]<T: SeqFloat>(gates: &[T], tanh_c: &[T], before: &[T], dh: &[T], dc: &mut [T], d: &mut [T]) {
        let (n, one) = (dh.len(), T::one());
        let ([i, f], [g, o]) = halves(gates, n);
        let (left, right) = d.split_at_mut(2 * n);
        let ((di, df), (dg, d_o)) = (left.split_at_mut(n), right.split_at_mut(n));
        let (tanh_c, before, dc) = (&tanh_c[..n], &before[..n], &mut dc[..n]);
        for k in 0..n {
            let grad = dc[k] + dh[k] * o[k] * (one - tanh_c[k] * tanh_c[k]);
            di[k] = grad * g[k] * i[k] * (one - i[k]);
            df[k] = grad * before[k] * f[k] * (one - f[k]);
            dg[k] = grad * i[k] * (one - g[k] * g[k]);
            d_o[k] = dh[k] * tanh_c[k] * o[k] * (one - o[k]);
            dc[k] = grad * f[k];
        }
    }
}
