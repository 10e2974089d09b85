//! The gated recurrent unit over a sequence.

use super::level::level;
use super::math::Real;
use super::seq_math::SeqFloat;
use super::simd::simd_fn;
use super::through_time::{Block, Cell, Step};

/// Gated recurrent unit (Cho et al. 2014), PyTorch's equations and order of gates, in which the reset gate applies
/// after the recurrent product:
///
/// ```text
/// [r z] = σ(W_h[rz] hₜ₋₁ + W_i[rz] xₜ + b[rz])      n = tanh(W_in xₜ + b_in + r ∘ hn)      hn = W_hn hₜ₋₁ + b_hn
/// hₜ = (1 - z) ∘ n + z ∘ hₜ₋₁
/// ```
///
/// A row's gates are `[r z n hn]`. A recurrent mask applies to the recurrent products and not to `z ∘ hₜ₋₁`, as in Keras.
/// Backward, with `dh = dhsₜ + dhₜ`,
///
/// ```text
/// dn = dh ∘ (1 - z) ∘ (1 - n²)     dz = dh ∘ (hₜ₋₁ - n) ∘ z(1 - z)     dr = dn ∘ hn ∘ r(1 - r)     dhn = dn ∘ r
/// dhₜ₋₁ = dh ∘ z + W_hhᵀ [dr dz dhn]                                   dxₜ = W_ihᵀ [dr dz dn]
/// ```
#[derive(Clone, Copy)]
pub(super) struct Gru;

impl<T: SeqFloat> Cell<T> for Gru {
    const GATES: usize = 3;
    const SUMS: usize = 4;
    const CELL: bool = false;
    fn blocks(self, h: usize, e: usize) -> Vec<Block> {
        vec![
            Block { columns: 0..2 * h, row: 0, terms: 0..h + e },
            Block { columns: 2 * h..3 * h, row: 2 * h, terms: h..h + e },
            Block { columns: 3 * h..4 * h, row: 2 * h, terms: 0..h },
        ]
    }
    fn forward(self, gates: &mut [T], state: &mut [T], _: &mut [T], hs: &mut [T], _: &mut [T], next: &mut [T]) {
        let n = state.len();
        let (rz, rest) = gates.split_at_mut(2 * n);
        let ((r, z), (new, hn)) = (rz.split_at_mut(n), rest.split_at_mut(n));
        cell_forward(level(), r, z, new, hn, state, hs, next);
    }
    fn backward(self, step: &Step<T>, dh: &mut [T], _: &mut [T], d: &mut [T]) {
        let (rz, rest) = d.split_at_mut(2 * dh.len());
        let ((dr, dz), (dn, d_hn)) = (rz.split_at_mut(dh.len()), rest.split_at_mut(dh.len()));
        cell_backward(level(), step.gates, step.h_before, dh, dr, dz, dn, d_hn);
    }
}

simd_fn! {
    /// The gates go from sums to activations, `state` to the next one.
    fn cell_forward[S]<T: SeqFloat>(
        r: &mut [T], z: &mut [T], n: &mut [T], hn: &[T], state: &mut [T], hs: &mut [T], next: &mut [T],
    ) {
        let h = state.len();
        let (r, z, n, hn) = (&mut r[..h], &mut z[..h], &mut n[..h], &hn[..h]);
        let (hs, next) = (&mut hs[..h], &mut next[..h]);
        for k in 0..h {
            r[k] = Real::sigmoid::<S>(r[k]);
            z[k] = Real::sigmoid::<S>(z[k]);
            n[k] = Real::tanh::<S>(n[k] + r[k] * hn[k]);
            let new = (T::one() - z[k]) * n[k] + z[k] * state[k];
            (state[k], hs[k], next[k]) = (new, new, new);
        }
    }
}

simd_fn! {
    /// `dh` becomes `dh ∘ z`.
    fn cell_backward[S]<T: SeqFloat>(
        gates: &[T], before: &[T], dh: &mut [T], dr: &mut [T], dz: &mut [T], dn: &mut [T], d_hn: &mut [T],
    ) {
        let (h, one) = (dh.len(), T::one());
        let (rz, rest) = gates.split_at(2 * h);
        let ((r, z), (n, hn)) = (rz.split_at(h), rest.split_at(h));
        let (n, hn, before) = (&n[..h], &hn[..h], &before[..h]);
        let (dr, dz, dn, d_hn) = (&mut dr[..h], &mut dz[..h], &mut dn[..h], &mut d_hn[..h]);
        for k in 0..h {
            let grad = dh[k] * (one - z[k]) * (one - n[k] * n[k]);
            dr[k] = grad * hn[k] * r[k] * (one - r[k]);
            dz[k] = dh[k] * (before[k] - n[k]) * z[k] * (one - z[k]);
            dn[k] = grad;
            d_hn[k] = grad * r[k];
            dh[k] *= z[k];
        }
    }
}
