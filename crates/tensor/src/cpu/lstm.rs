//! The long short-term memory over a sequence, forward and backward.

use super::gemm::{MatRef, Packed, gemm};
use super::level::level;
use super::recurrence::{Recurrence, UpstreamGradients, optional, start, zero_after_end};
use super::scratch::with_scratch;
use super::seq_math::{SeqFloat, sigmoid, tanh, tanh_at};
use super::simd::simd_fn;
use crate::cpu::parallel::*;
use std::ops::Range;

/// What a step adds to the recurrence: its input, and all of the weights.
///
/// A step multiplies the state and the input, side by side, by the weights of both, side by side: with `z = [h ; x]` and
/// `W = [W_hh | W_ih]` the gates are `W z + b`, the gradients of what they were made from `Wᵀ d`, and of the weights
/// `d zᵀ`.
#[derive(Clone, Copy)]
pub struct LstmInput<'a, T> {
    /// `E`, the size of an input.
    pub e: usize,
    /// The inputs `[T, B, E]`; a row's elements are neighbours.
    pub x: &'a [T],
    /// How far apart in `x` time steps and batch rows are.
    pub strides: [usize; 2],
    /// `W = [W_hh | W_ih]`, `[4H, H + E]`.
    pub w: &'a [T],
    /// `b_ih + b_hh`, `[4H]`.
    pub bias: &'a [T],
}

impl<T: SeqFloat> LstmInput<'_, T> {
    fn check(&self, seq: &Recurrence<T>) {
        assert_eq!(self.w.len(), 4 * seq.h * (seq.h + self.e), "the weights are [4H, H + E]");
        assert_eq!(self.bias.len(), 4 * seq.h, "the bias is [4H]");
    }
    /// The input of batch row `r` at step `t`.
    #[inline]
    fn row(&self, t: usize, r: usize) -> &[T] {
        &self.x[t * self.strides[0] + r * self.strides[1]..][..self.e]
    }
    /// `z = [mask ∘ h ; xₜ]` of batch row `r`.
    #[inline]
    fn side_by_side(&self, seq: &Recurrence<T>, t: usize, r: usize, state: &[T], z: &mut [T]) {
        let (left, right) = z.split_at_mut(seq.h);
        left.copy_from_slice(state);
        seq.mask_row(r, left);
        right.copy_from_slice(self.row(t, r));
    }
}

/// Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000), PyTorch's
/// equations and order of gates:
///
/// ```text
/// [i f g o] = [σ σ tanh σ](W_hh hₜ₋₁ + W_ih xₜ + b)        cₜ = f ∘ cₜ₋₁ + i ∘ g        hₜ = o ∘ tanh(cₜ)
/// ```
///
/// `gates` `[T, B, 4H]` receives the activated gates, `cells` `[T, B, H]` the `cₜ`: the backward pass needs them. `h0` and
/// `c0` `[B, H]` are the state before the first step, `h_n` and `c_n` receive the one after the last, `hs` `[T, B, H]`
/// the outputs. Where a row has ended, its outputs and cells are zero and its gates mean nothing.
///
/// The rows of a batch are dealt out to the threads, which then need not wait for each other until the end of time; the
/// result does not depend on their number. A step is one matrix product and one pass over the gates, which are still in
/// the cache.
///
/// # Panics
/// If an array has the wrong length.
pub fn lstm_forward<T: SeqFloat>(
    seq: &Recurrence<T>,
    input: &LstmInput<T>,
    gates: &mut [T],
    (h0, c0): (&[T], &[T]),
    hs: &mut [T],
    cells: &mut [T],
    (h_n, c_n): (&mut [T], &mut [T]),
) {
    seq.check(4);
    input.check(seq);
    let (h, k) = (seq.h, seq.h + input.e);
    start(h_n, Some(h0));
    start(c_n, Some(c0));
    let pieces = seq.pieces();
    let weights = Packed::new(level(), MatRef::row_major(input.w, k).t(), k, 4 * h);
    let parallel = pieces.len() == 1;
    let gates = seq.split(gates, 4 * h, &pieces);
    let outputs = seq.split(hs, h, &pieces).into_iter().zip(seq.split(cells, h, &pieces));
    let states = seq.split_rows(h_n, h, &pieces).into_iter().zip(seq.split_rows(c_n, h, &pieces));
    let tasks: Vec<_> = pieces.iter().zip(gates).zip(outputs).zip(states).collect();
    tasks.into_par_iter().with_max_len(1).for_each(|(((rows, mut gates), (mut hs, mut cells)), (state, cell))| {
        with_scratch(rows.len() * k, |z: &mut [T]| {
            for t in seq.steps(rows) {
                for ((r, z), state) in rows.clone().zip(z.chunks_exact_mut(k.max(1))).zip(state.chunks_exact(h.max(1)))
                {
                    input.side_by_side(seq, t, r, state, z);
                }
                weights.product_bias(rows.len(), MatRef::row_major(z, k), input.bias, gates[t], parallel);
                for (n, _) in seq.active(rows, t) {
                    let own = n * h..(n + 1) * h;
                    let (state, cell) = (&mut state[own.clone()], &mut cell[own.clone()]);
                    cell_forward(level(), &mut gates[t][4 * n * h..4 * (n + 1) * h], state, cell);
                    hs[t][own.clone()].copy_from_slice(state);
                    cells[t][own].copy_from_slice(cell);
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
    /// Of the inputs `[B, T, E]`, if anybody wants to know.
    pub d_x: Option<&'a mut [T]>,
    /// Of the first state `[B, H]`.
    pub d_h0: &'a mut [T],
    /// Of the first cell `[B, H]`.
    pub d_c0: &'a mut [T],
    /// Of `W_hh` `[4H, H]`.
    pub d_w_hh: &'a mut [T],
    /// Of `W_ih` `[4H, E]`.
    pub d_w_ih: &'a mut [T],
    /// Of either bias `[4H]`.
    pub d_bias: &'a mut [T],
}

/// Batch rows × steps whose gates' gradients are kept until they are multiplied into the weights' gradient.
const BLOCK: usize = 128;
/// Most sums of the weights' gradient that are made at once, and most elements of them.
const CHAINS: usize = 16;
const CHAIN_ELEMENTS: usize = 1 << 24;

/// The gradients of [`lstm_forward`]: backpropagation through time,
///
/// ```text
/// dh = dhsₜ + dhₜ                                  dc = dcₜ + dh ∘ o ∘ (1 - tanh² cₜ)
/// di = dc ∘ g ∘ i(1 - i)      df = dc ∘ cₜ₋₁ ∘ f(1 - f)      dg = dc ∘ i ∘ (1 - g²)      do = dh ∘ tanh(cₜ) ∘ o(1 - o)
/// dcₜ₋₁ = dc ∘ f              [dhₜ₋₁ ; dxₜ] = Wᵀ [di df dg do]
/// dW = Σₜ [di df dg do] [hₜ₋₁ ; xₜ]ᵀ                          db = Σₜ [di df dg do]
/// ```
///
/// The gates' gradients are never all in memory: a few steps of them are multiplied into `dW` while the cache holds them.
/// The batch is cut as in the forward pass, and the cut pieces' `dW` are added in order.
///
/// # Panics
/// If an array has the wrong length.
pub fn lstm_backward<T: SeqFloat>(
    seq: &Recurrence<T>,
    input: &LstmInput<T>,
    saved: &LstmSaved<T>,
    upstream: &UpstreamGradients<T>,
    gradients: LstmGradients<T>,
) {
    seq.check(4);
    input.check(seq);
    let (h, e, k) = (seq.h, input.e, seq.h + input.e);
    let LstmGradients { d_x, d_h0, d_c0, d_w_hh, d_w_ih, d_bias } = gradients;
    start(d_h0, upstream.d_hn);
    start(d_c0, upstream.d_cn);
    if h == 0 {
        // There are no gates; no input matters.
        return d_x.into_iter().for_each(|d_x| d_x.fill(T::zero()));
    }
    let weights = Packed::new(level(), MatRef::row_major(input.w, k), 4 * h, k);
    let pieces = seq.pieces();
    let d_x = optional(d_x, pieces.len(), |d_x| seq.split_rows(d_x, seq.t * e, &pieces));
    let states = seq.split_rows(d_h0, h, &pieces).into_iter().zip(seq.split_rows(d_c0, h, &pieces));
    let mut tasks: Vec<_> = pieces.iter().zip(d_x).zip(states).collect();

    let sums = 4 * h * (k + 1);
    let chains = (CHAIN_ELEMENTS / sums.max(1)).clamp(1, CHAINS);
    let each = pieces.len().div_ceil(chains).max(1);
    let mut partial = vec![T::zero(); pieces.len().div_ceil(each) * sums];
    let step = Backward { seq, input, saved, upstream, weights, parallel: pieces.len() == 1 };
    tasks.par_chunks_mut(each).zip(partial.par_chunks_mut(sums.max(1))).for_each(|(tasks, sums)| {
        let (d_w, d_bias) = sums.split_at_mut(4 * h * k);
        for ((rows, d_x), (dh, dc)) in tasks {
            step.through_time(rows, std::mem::take(d_x), (dh, dc), (d_w, d_bias));
        }
    });

    for d in [&mut *d_w_hh, &mut *d_w_ih, &mut *d_bias] {
        d.fill(T::zero());
    }
    for sums in partial.chunks(sums.max(1)) {
        let (d_w, bias) = sums.split_at(4 * h * k);
        for (n, row) in d_w.chunks_exact(k.max(1)).enumerate() {
            add(&mut d_w_hh[n * h..(n + 1) * h], &row[..h]);
            add(&mut d_w_ih[n * e..(n + 1) * e], &row[h..]);
        }
        add(d_bias, bias);
    }
}

fn add<T: SeqFloat>(y: &mut [T], x: &[T]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
}

/// What the pieces of a batch have in common on the way back.
struct Backward<'a, T: SeqFloat> {
    seq: &'a Recurrence<'a, T>,
    input: &'a LstmInput<'a, T>,
    saved: &'a LstmSaved<'a, T>,
    upstream: &'a UpstreamGradients<'a, T>,
    weights: Packed<T>,
    parallel: bool,
}

impl<T: SeqFloat> Backward<'_, T> {
    /// One piece of the batch: `dh` and `dc` go from the gradients of the last state and cell to those of the first, and
    /// `d_w` and `d_bias` gain the piece's part. `d_x` `[rows, T, E]` is overwritten unless it is empty.
    fn through_time(
        &self,
        rows: &Range<usize>,
        d_x: &mut [T],
        (dh, dc): (&mut [T], &mut [T]),
        (d_w, d_bias): (&mut [T], &mut [T]),
    ) {
        let (seq, m) = (self.seq, rows.len());
        let (h, e, steps) = (seq.h, self.input.e, seq.t);
        let (k, block) = (h + e, (BLOCK / m).max(1));
        // The product's columns: all, or those of the state alone.
        let wanted = if d_x.is_empty() { h } else { k };
        with_scratch(block * m * (4 * h + k) + m * wanted + h, |scratch: &mut [T]| {
            let (d, rest) = scratch.split_at_mut(block * m * 4 * h);
            let (z, rest) = rest.split_at_mut(block * m * k);
            let (product, tanh_c) = rest.split_at_mut(m * wanted);
            let mut used = 0;
            for t in seq.steps(rows).rev() {
                let (d_t, z_t) = (&mut d[used * m * 4 * h..][..m * 4 * h], &mut z[used * m * k..][..m * k]);
                used += 1;
                if seq.lengths.is_some() {
                    // Nothing comes from the rows that are over.
                    d_t.fill(T::zero());
                    z_t.fill(T::zero());
                }
                for (n, r) in seq.active(rows, t) {
                    let own = n * h..(n + 1) * h;
                    let d = &mut d_t[4 * n * h..4 * (n + 1) * h];
                    self.cell(t, r, &mut dh[own.clone()], &mut dc[own], tanh_c, d);
                    let state = seq.before(self.saved.hs, self.saved.h0, t, r);
                    self.input.side_by_side(seq, t, r, state, &mut z_t[n * k..(n + 1) * k]);
                }
                let d_t = MatRef::row_major(d_t, 4 * h);
                self.weights.part(m, (4 * h, wanted), d_t, product, wanted, false, self.parallel);
                for (n, r) in seq.active(rows, t) {
                    let product = &mut product[n * wanted..][..h];
                    seq.mask_row(r, product);
                    dh[n * h..(n + 1) * h].copy_from_slice(product);
                }
                if !d_x.is_empty() {
                    for (n, product) in product.chunks_exact(wanted.max(1)).enumerate() {
                        d_x[(n * steps + t) * e..][..e].copy_from_slice(&product[h..]);
                    }
                }
                if used == block {
                    self.weights_gain(used * m, d, z, (d_w, d_bias));
                    used = 0;
                }
            }
            self.weights_gain(used * m, d, z, (d_w, d_bias));
        });
        let done = seq.steps(rows).count();
        for d_x in d_x.chunks_exact_mut((steps * e).max(1)) {
            d_x[done * e..].fill(T::zero());
        }
    }

    /// One row of one step, up to its gates.
    fn cell(&self, t: usize, r: usize, dh: &mut [T], dc: &mut [T], tanh_c: &mut [T], d: &mut [T]) {
        let Recurrence { b, h, .. } = *self.seq;
        let (at, saved) = ((t * b + r) * h, self.saved);
        if let Some(d_hs) = self.upstream.d_hs {
            dh.iter_mut().zip(&d_hs[at..at + h]).for_each(|(d, &x)| *d += x);
        }
        tanh_c.copy_from_slice(&saved.cells[at..at + h]);
        tanh_at(level(), tanh_c);
        let before = self.seq.before(saved.cells, saved.c0, t, r);
        cell_backward(level(), &saved.gates[4 * at..4 * (at + h)], tanh_c, before, dh, dc, d);
    }

    /// `d_w += dᵀ z`, `d_bias += Σ d` over `n` rows.
    fn weights_gain(&self, n: usize, d: &[T], z: &[T], (d_w, d_bias): (&mut [T], &mut [T])) {
        let (gates, k) = (4 * self.seq.h, self.seq.h + self.input.e);
        if n == 0 {
            return;
        }
        let (left, right) = (MatRef::row_major(d, gates).t(), MatRef::row_major(z, k));
        gemm(gates, k, n, left, right, d_w, k, true, self.parallel);
        add_rows(level(), &d[..n * gates], d_bias);
    }
}

simd_fn! {
    /// Adds every row to `sum`.
    fn add_rows[S]<T: SeqFloat>(rows: &[T], sum: &mut [T]) {
        for row in rows.chunks_exact(sum.len()) {
            sum.iter_mut().zip(row).for_each(|(s, &x)| *s += x);
        }
    }
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
