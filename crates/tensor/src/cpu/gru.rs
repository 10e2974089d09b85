//! The gated recurrent unit over a sequence, forward and backward.

use super::gemm::MatRef;
use super::level::level;
use super::recurrence::{Recurrence, UpstreamGradients, optional, start, zero_after_end};
use super::scratch::with_scratch;
use super::seq_math::{SeqFloat, sigmoid, tanh};
use super::simd::simd_fn;
use crate::cpu::parallel::*;

/// Gated recurrent unit (Cho et al. 2014), PyTorch's equations and order of gates, in which the reset gate applies
/// after the recurrent product:
///
/// ```text
/// [r z] = σ(gxₜ[r z] + W_h[r z] hₜ₋₁)      n = tanh(gxₜ[n] + r ∘ (W_hn hₜ₋₁ + b_hn))      hₜ = (1 - z) ∘ n + z ∘ hₜ₋₁
/// ```
///
/// `gates` `[T, B, 3H]` holds `gx = W_ih x + b_ih` on entry, to which the caller has added the `r` and `z` parts of
/// `b_hh`, and the activated gates on return. `b_hn` `[H]` is the remaining part of that bias. `hn` `[T, B, H]`
/// receives `W_hn hₜ₋₁ + b_hn` and is only needed for the backward pass. `h0` is the state before the first step, `h_n`
/// (`[B, H]` both) receives the one after the last, `hs` `[T, B, H]` the outputs. Where a row has ended, its outputs
/// are zero and its gates mean nothing. A recurrent mask applies to the recurrent products and not to `z ∘ hₜ₋₁`, as in
/// Keras.
///
/// The rows of a batch are dealt out to the threads, which then need not wait for each other until the end of time; the
/// result does not depend on their number.
///
/// # Panics
/// If an array has the wrong length.
pub fn gru_forward<T: SeqFloat>(
    seq: &Recurrence<T>,
    gates: &mut [T],
    b_hn: Option<&[T]>,
    h0: &[T],
    hs: &mut [T],
    hn: Option<&mut [T]>,
    h_n: &mut [T],
) {
    seq.check(3);
    let h = seq.h;
    assert!(b_hn.is_none_or(|b| b.len() == h), "the bias of n is [H]");
    start(h_n, Some(h0));
    let pieces = seq.pieces();
    let weights = seq.transposed_weights();
    let parallel = pieces.len() == 1;
    let gates = seq.split(gates, 3 * h, &pieces);
    let hs = seq.split(hs, h, &pieces);
    let hn = optional(hn, pieces.len(), |hn| seq.split(hn, h, &pieces));
    let tasks: Vec<_> = pieces.iter().zip(gates).zip(hs).zip(hn).zip(seq.split_rows(h_n, h, &pieces)).collect();
    tasks.into_par_iter().with_max_len(1).for_each(|((((rows, mut gates), mut hs), mut hn), state)| {
        with_scratch(3 * rows.len() * h + seq.mask_scratch(rows), |scratch: &mut [T]| {
            let (recurrent, masked) = scratch.split_at_mut(3 * rows.len() * h);
            for t in seq.steps(rows) {
                let x = seq.recurrent_input(rows, state, masked);
                weights.product(rows.len(), x, recurrent, 3 * h, false, parallel);
                for (n, _) in seq.active(rows, t) {
                    let (own, wide) = (n * h..(n + 1) * h, 3 * n * h..3 * (n + 1) * h);
                    let (recurrent, state) = (&mut recurrent[wide.clone()], &mut state[own.clone()]);
                    if let Some(b) = b_hn {
                        recurrent[2 * h..].iter_mut().zip(b).for_each(|(x, &b)| *x += b);
                    }
                    cell_forward(level(), &mut gates[t][wide], recurrent, state);
                    hs[t][own.clone()].copy_from_slice(state);
                    if let Some(hn) = hn.get_mut(t) {
                        hn[own].copy_from_slice(&recurrent[2 * h..]);
                    }
                }
            }
        });
        zero_after_end(seq, rows, &mut hs, h);
        zero_after_end(seq, rows, &mut hn, h);
    });
}

simd_fn! {
    /// One row of one step: `gates` `[3H]` goes from the input's part to activations, `state` to the next one.
    fn cell_forward[S]<T: SeqFloat>(gates: &mut [T], recurrent: &[T], state: &mut [T]) {
        let n = state.len();
        let (rz, new) = gates.split_at_mut(2 * n);
        rz.iter_mut().zip(recurrent).for_each(|(x, &y)| *x += y);
        sigmoid::<S, T>(rz);
        let (r, z) = rz.split_at(n);
        new.iter_mut().zip(r).zip(&recurrent[2 * n..]).for_each(|((x, &r), &y)| *x += r * y);
        tanh::<S, T>(new);
        for k in 0..n {
            state[k] = (T::one() - z[k]) * new[k] + z[k] * state[k];
        }
    }
}

/// What [`gru_forward`] was given and what it made, for the backward pass.
#[derive(Clone, Copy)]
pub struct GruSaved<'a, T> {
    /// The activated gates `[T, B, 3H]`.
    pub gates: &'a [T],
    /// `W_hn hₜ₋₁ + b_hn`, `[T, B, H]`.
    pub hn: &'a [T],
    /// The outputs `[T, B, H]`.
    pub hs: &'a [T],
    /// The first state `[B, H]`.
    pub h0: &'a [T],
}

/// The gradients that [`gru_backward`] writes. They need not be initialised.
pub struct GruGradients<'a, T> {
    /// Of the input's part of the gates `[T, B, 3H]`; its sum over `T` and `B` is the gradient of `b_ih` and of the `r`
    /// and `z` parts of `b_hh`.
    pub d_gx: &'a mut [T],
    /// Of the first state `[B, H]`.
    pub d_h0: &'a mut [T],
    /// Of the recurrent weights `[3H, H]`.
    pub d_w_hh: &'a mut [T],
    /// Of `b_hn` `[H]`.
    pub d_b_hn: Option<&'a mut [T]>,
}

/// The gradients of [`gru_forward`]: with `dh = dhsₜ + dhₜ`,
///
/// ```text
/// dn = dh ∘ (1 - z) ∘ (1 - n²)     dz = dh ∘ (hₜ₋₁ - n) ∘ z(1 - z)     dr = dn ∘ hnₜ ∘ r(1 - r)     dhn = dn ∘ r
/// dgxₜ = [dr dz dn]                dhₜ₋₁ = dh ∘ z + W_hhᵀ [dr dz dhn]   dW_hh = Σₜ [dr dz dhn] hₜ₋₁ᵀ   db_hn = Σₜ dhn
/// ```
///
/// # Panics
/// If an array has the wrong length.
pub fn gru_backward<T: SeqFloat>(
    seq: &Recurrence<T>,
    saved: &GruSaved<T>,
    upstream: &UpstreamGradients<T>,
    gradients: GruGradients<T>,
) {
    seq.check(3);
    let Recurrence { t: steps, b, h, .. } = *seq;
    let GruGradients { d_gx, d_h0, d_w_hh, d_b_hn } = gradients;
    start(d_h0, upstream.d_hn);
    let (rz_weights, n_weights) = (seq.weights(0..2 * h), seq.weights(2 * h..3 * h));
    let pieces = seq.pieces();
    let parallel = pieces.len() == 1;
    let mut d_hn = vec![T::zero(); steps * b * h];
    let d_gates = seq.split(d_gx, 3 * h, &pieces);
    let d_hn_split = seq.split(&mut d_hn, h, &pieces);
    let tasks: Vec<_> = pieces.iter().zip(d_gates).zip(d_hn_split).zip(seq.split_rows(d_h0, h, &pieces)).collect();
    tasks.into_par_iter().with_max_len(1).for_each(|(((rows, mut d_gates), mut d_hn), dh)| {
        zero_after_end(seq, rows, &mut d_gates, 3 * h);
        with_scratch(rows.len() * h, |product: &mut [T]| {
            for t in seq.steps(rows).rev() {
                for (n, r) in seq.active(rows, t) {
                    let (at, own) = ((t * b + r) * h, n * h..(n + 1) * h);
                    let dh = &mut dh[own.clone()];
                    if let Some(d_hs) = upstream.d_hs {
                        dh.iter_mut().zip(&d_hs[at..at + h]).for_each(|(d, &x)| *d += x);
                    }
                    let gates = &saved.gates[3 * at..3 * (at + h)];
                    let before = seq.before(saved.hs, saved.h0, t, r);
                    let d = &mut d_gates[t][3 * n * h..3 * (n + 1) * h];
                    cell_backward(level(), gates, &saved.hn[at..at + h], before, dh, d, &mut d_hn[t][own]);
                }
                // W_hhᵀ [dr dz dhn], where [dr dz] and dhn lie in two arrays.
                let (rz, n) = (MatRef::row_major(d_gates[t], 3 * h), MatRef::row_major(d_hn[t], h));
                rz_weights.product(rows.len(), rz, product, h, false, parallel);
                n_weights.product(rows.len(), n, product, h, true, parallel);
                for (n, r) in seq.active(rows, t) {
                    let (own, product) = (n * h..(n + 1) * h, &mut product[n * h..(n + 1) * h]);
                    seq.mask_row(r, product);
                    dh[own].iter_mut().zip(product).for_each(|(d, &mut p)| *d += p);
                }
            }
        });
    });
    if let Some(d_b) = d_b_hn {
        d_b.fill(T::zero());
        for row in d_hn.chunks(h.max(1)) {
            d_b.iter_mut().zip(row).for_each(|(d, &x)| *d += x);
        }
    }
    let (rz, n) = d_w_hh.split_at_mut(2 * h * h);
    seq.weight_gradient(d_gx, 3 * h, 2 * h, saved.hs, saved.h0, rz);
    seq.weight_gradient(&d_hn, h, h, saved.hs, saved.h0, n);
}

simd_fn! {
    /// One row of one step: `d` `[3H]` and `d_hn` receive gradients, `dh` becomes `dh ∘ z`.
    fn cell_backward[S]<T: SeqFloat>(gates: &[T], hn: &[T], before: &[T], dh: &mut [T], d: &mut [T], d_hn: &mut [T]) {
        let (size, one) = (dh.len(), T::one());
        let (r, rest) = gates.split_at(size);
        let (z, n) = rest.split_at(size);
        let (dr, rest) = d.split_at_mut(size);
        let (dz, dn) = rest.split_at_mut(size);
        let (hn, before, d_hn) = (&hn[..size], &before[..size], &mut d_hn[..size]);
        for k in 0..size {
            dn[k] = dh[k] * (one - z[k]) * (one - n[k] * n[k]);
            dz[k] = dh[k] * (before[k] - n[k]) * z[k] * (one - z[k]);
            dr[k] = dn[k] * hn[k] * r[k] * (one - r[k]);
            d_hn[k] = dn[k] * r[k];
            dh[k] *= z[k];
        }
    }
}
