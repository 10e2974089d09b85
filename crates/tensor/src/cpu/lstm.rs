//! The long short-term memory over a sequence.

use super::level::level;
use super::math::Real;
use super::seq_math::SeqFloat;
use super::simd::simd_fn;
use super::through_time::{Block, Cell, Step};

/// Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000), PyTorch's
/// equations and order of gates:
///
/// ```text
/// [i f g o] = [σ σ tanh σ](W_hh hₜ₋₁ + W_ih xₜ + b)        cₜ = f ∘ cₜ₋₁ + i ∘ g        hₜ = o ∘ tanh(cₜ)
/// ```
///
/// and backward
///
/// ```text
/// dh = dhsₜ + dhₜ                                  dc = dcₜ + dh ∘ o ∘ (1 - tanh² cₜ)
/// di = dc ∘ g ∘ i(1 - i)      df = dc ∘ cₜ₋₁ ∘ f(1 - f)      dg = dc ∘ i ∘ (1 - g²)      do = dh ∘ tanh(cₜ) ∘ o(1 - o)
/// dcₜ₋₁ = dc ∘ f              [dhₜ₋₁ ; dxₜ] = Wᵀ [di df dg do]
/// dW = Σₜ [di df dg do] [hₜ₋₁ ; xₜ]ᵀ                          db = Σₜ [di df dg do]
/// ```
#[derive(Clone, Copy)]
pub(super) struct Lstm;

impl<T: SeqFloat> Cell<T> for Lstm {
    const GATES: usize = 4;
    const SUMS: usize = 4;
    const CELL: bool = true;
    fn blocks(self, h: usize, e: usize) -> Vec<Block> {
        Block::whole(4 * h, h + e)
    }
    fn forward(self, gates: &mut [T], state: &mut [T], c: &mut [T], hs: &mut [T], cells: &mut [T], z: &mut [T]) {
        let n = state.len();
        let (left, right) = gates.split_at_mut(2 * n);
        let ((i, f), (g, o)) = (left.split_at_mut(n), right.split_at_mut(n));
        cell_forward(level(), i, f, g, o, state, c, hs, cells, z);
    }
    fn backward(self, step: &Step<T>, dh: &mut [T], dc: &mut [T], d: &mut [T]) {
        let (left, right) = d.split_at_mut(2 * dh.len());
        let ((di, df), (dg, d_o)) = (left.split_at_mut(dh.len()), right.split_at_mut(dh.len()));
        cell_backward(level(), step.gates, step.c, step.c_before, dh, dc, di, df, dg, d_o);
    }
}

simd_fn! {
    /// The four gates go from sums to activations.
    fn cell_forward[S]<T: SeqFloat>(
        i: &mut [T], f: &mut [T], g: &mut [T], o: &mut [T],
        state: &mut [T], c: &mut [T], hs: &mut [T], cells: &mut [T], z: &mut [T],
    ) {
        let n = state.len();
        let (i, f, g, o, c) = (&mut i[..n], &mut f[..n], &mut g[..n], &mut o[..n], &mut c[..n]);
        let (hs, cells, z) = (&mut hs[..n], &mut cells[..n], &mut z[..n]);
        for k in 0..n {
            i[k] = Real::sigmoid::<S>(i[k]);
            f[k] = Real::sigmoid::<S>(f[k]);
            g[k] = Real::tanh::<S>(g[k]);
            o[k] = Real::sigmoid::<S>(o[k]);
            let new = f[k] * c[k] + i[k] * g[k];
            let h = o[k] * Real::tanh::<S>(new);
            (c[k], cells[k]) = (new, new);
            (state[k], hs[k], z[k]) = (h, h, h);
        }
    }
}

simd_fn! {
    /// `dc` goes to the cell before; the state before is reached through the gates alone.
    fn cell_backward[S]<T: SeqFloat>(
        gates: &[T], c: &[T], before: &[T], dh: &mut [T], dc: &mut [T],
        di: &mut [T], df: &mut [T], dg: &mut [T], d_o: &mut [T],
    ) {
        let (n, one) = (dh.len(), T::one());
        let (left, right) = gates.split_at(2 * n);
        let ((i, f), (g, o)) = (left.split_at(n), right.split_at(n));
        let (g, o, c, before, dc) = (&g[..n], &o[..n], &c[..n], &before[..n], &mut dc[..n]);
        let (di, df, dg, d_o) = (&mut di[..n], &mut df[..n], &mut dg[..n], &mut d_o[..n]);
        for k in 0..n {
            let tanh_c = Real::tanh::<S>(c[k]);
            let grad = dc[k] + dh[k] * o[k] * (one - tanh_c * tanh_c);
            di[k] = grad * g[k] * i[k] * (one - i[k]);
            df[k] = grad * before[k] * f[k] * (one - f[k]);
            dg[k] = grad * i[k] * (one - g[k] * g[k]);
            d_o[k] = dh[k] * tanh_c * o[k] * (one - o[k]);
            dc[k] = grad * f[k];
            dh[k] = T::zero();
        }
    }
}
