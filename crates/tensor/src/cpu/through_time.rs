//! A recurrent network's way through time, forward and backward, whatever its cell.
//!
//! The rows of a batch are dealt out to the threads, which then need not wait for each other until the end of time; the
//! result does not depend on their number. A step multiplies the state and the input, side by side, by the weights of
//! both, side by side: with `z = [h ; x]` and `W = [W_hh | W_ih]` the gates are made from `W z + b`, the gradients of what
//! went into a step are `Wᵀ d`, and those of the weights `d zᵀ`. What is left to the [`Cell`] is a pass over each row's
//! gates, which are still in the cache.

use super::gemm::{MatRef, Packed, gemm};
use super::level::level;
use super::recurrence::{Recurrence, UpstreamGradients, optional, start, zero_after_end};
use super::scratch::with_scratch;
use super::seq_math::SeqFloat;
use super::simd::{prefetch, simd_fn};
use crate::cpu::parallel::*;
use crate::storage::CpuBuffer;
use std::ops::Range;

/// What a step adds to the recurrence: its input, and all of the weights.
#[derive(Clone, Copy)]
pub struct SequenceInput<'a, T> {
    /// `E`, the size of an input.
    pub e: usize,
    /// The inputs `[T, B, E]`; a row's elements are neighbours.
    pub x: &'a [T],
    /// How far apart in `x` time steps and batch rows are.
    pub strides: [usize; 2],
    /// `W = [W_hh | W_ih]`, `[G·H, H + E]`.
    pub w: &'a [T],
    /// One for each of the cell's sums: `b_ih + b_hh`, but for the GRU's `n`, whose two parts it adds up apart.
    pub bias: &'a [T],
}

impl<T: SeqFloat> SequenceInput<'_, T> {
    /// The input of batch row `r` at step `t`.
    #[inline]
    fn row(&self, t: usize, r: usize) -> &[T] {
        &self.x[t * self.strides[0] + r * self.strides[1]..][..self.e]
    }
}

/// A product of each step: some columns of `W z`, in terms of `h`, `x` or both.
pub(super) struct Block {
    /// Of the sums.
    pub columns: Range<usize>,
    /// The first row of the weights that makes them.
    pub row: usize,
    /// Of `z = [h ; x]`.
    pub terms: Range<usize>,
}

impl Block {
    /// All of `W z`.
    pub(super) fn whole(columns: usize, terms: usize) -> Vec<Block> {
        vec![Block { columns: 0..columns, row: 0, terms: 0..terms }]
    }
    fn weights(&self) -> usize {
        self.columns.len() * self.terms.len()
    }
}

/// What makes a recurrent network the one that it is: one step of one row.
pub(super) trait Cell<T: SeqFloat>: Copy + Sync {
    /// `G`: rows of the weights are `G·H`.
    const GATES: usize;
    /// A row has so many sums, over `H`.
    const SUMS: usize;
    /// Whether there is a second state, `c`.
    const CELL: bool;
    /// The products that make a row's sums.
    fn blocks(self, h: usize, e: usize) -> Vec<Block>;
    /// From a row's sums to its activated gates, and from `state` and `c` to the next ones; these are also written to
    /// `hs` and `cells`, and the state to the `z` of the next step.
    fn forward(self, gates: &mut [T], state: &mut [T], c: &mut [T], hs: &mut [T], cells: &mut [T], z: &mut [T]);
    /// Back again, from the gradients `dh` and `dc` of the step's states to those of its sums, `d`. In `dc` and `dh` is
    /// left what goes to the states before and not by way of the sums.
    fn backward(self, step: &Step<T>, dh: &mut [T], dc: &mut [T], d: &mut [T]);
}

/// What [`Cell::forward`] made of a row, and from what.
pub(super) struct Step<'a, T> {
    pub gates: &'a [T],
    pub h: &'a [T],
    pub c: &'a [T],
    pub h_before: &'a [T],
    pub c_before: &'a [T],
}

/// What the forward pass writes, none of which need be initialised. Cells are empty for networks without.
pub(super) struct Outputs<'a, T> {
    /// The activated gates `[T, B, SUMS·H]`, if the backward pass needs them.
    pub gates: Option<&'a mut [T]>,
    /// `[T, B, H]`, zero where a row has ended.
    pub hs: &'a mut [T],
    /// `[T, B, H]`, likewise.
    pub cells: &'a mut [T],
    /// The last state `[B, H]`.
    pub h_n: &'a mut [T],
    /// The last cell `[B, H]`.
    pub c_n: &'a mut [T],
}

/// What the forward pass was given and what it made.
pub(super) struct Saved<'a, T> {
    /// As in [`Outputs`]; empty if the backward pass does not need them.
    pub gates: &'a [T],
    pub hs: &'a [T],
    pub cells: &'a [T],
    pub h0: &'a [T],
    pub c0: &'a [T],
}

/// What the backward pass writes. It need not be initialised.
pub(super) struct Gradients<'a, T> {
    /// Of the inputs `[B, T, E]`, if anybody wants to know.
    pub d_x: Option<&'a mut [T]>,
    /// Of the first state `[B, H]`.
    pub d_h0: &'a mut [T],
    /// Of the first cell `[B, H]`.
    pub d_c0: &'a mut [T],
    /// Of `W_hh` `[G·H, H]`.
    pub d_w_hh: &'a mut [T],
    /// Of `W_ih` `[G·H, E]`.
    pub d_w_ih: &'a mut [T],
    /// Of [`SequenceInput::bias`].
    pub d_bias: &'a mut [T],
}

/// The sizes of a network.
struct Sizes {
    h: usize,
    /// Of the cell: `H` or none.
    c: usize,
    e: usize,
    /// Of `z`.
    k: usize,
    /// Sums of a row.
    sums: usize,
}

impl Sizes {
    fn new<T: SeqFloat, C: Cell<T>>(seq: &Recurrence<T>, input: &SequenceInput<T>) -> Sizes {
        let (h, e) = (seq.h, input.e);
        seq.check();
        assert_eq!(input.w.len(), C::GATES * h * (h + e), "the weights are [G·H, H + E]");
        assert_eq!(input.bias.len(), C::SUMS * h, "the bias is [{} · H]", C::SUMS);
        Sizes { h, c: if C::CELL { h } else { 0 }, e, k: h + e, sums: C::SUMS * h }
    }
}

/// From `h0` and `c0` to the end of time.
///
/// # Panics
/// If an array has the wrong length.
pub(super) fn forward<T: SeqFloat, C: Cell<T>>(
    network: C,
    seq: &Recurrence<T>,
    input: &SequenceInput<T>,
    (h0, c0): (&[T], &[T]),
    outputs: Outputs<T>,
) {
    let Sizes { h, c, e, k, sums } = Sizes::new::<T, C>(seq, input);
    let Outputs { gates, hs, cells, h_n, c_n } = outputs;
    start(h_n, Some(h0));
    start(c_n, Some(c0));
    let pieces = seq.pieces(C::GATES);
    let blocks = network.blocks(h, e).into_iter().map(|block| {
        let w = MatRef::row_major(input.w, k);
        let w = if block.weights() > 0 { w.at(block.row, block.terms.start) } else { w };
        let packed = Packed::new(level(), w.t(), block.terms.len(), block.columns.len());
        (block, packed)
    });
    let blocks: Vec<_> = blocks.collect();
    let parallel = pieces.len() == 1;
    let gates = optional(gates, pieces.len(), |gates| seq.split(gates, sums, &pieces));
    let outputs = seq.split(hs, h, &pieces).into_iter().zip(seq.split(cells, c, &pieces));
    let states = seq.split_rows(h_n, h, &pieces).into_iter().zip(seq.split_rows(c_n, c, &pieces));
    let tasks: Vec<_> = pieces.iter().zip(gates).zip(outputs).zip(states).collect();
    tasks.into_par_iter().with_max_len(1).for_each(|(((rows, mut gates), (mut hs, mut cells)), (state, cell))| {
        let m = rows.len();
        let own = if gates.is_empty() { m * sums } else { 0 };
        with_scratch(m * k + own, |scratch: &mut [T]| {
            let (z, own) = scratch.split_at_mut(m * k);
            for (n, r) in rows.clone().enumerate() {
                z[n * k..][..h].copy_from_slice(&state[n * h..][..h]);
                seq.mask_row(r, &mut z[n * k..][..h]);
            }
            for t in seq.steps(rows) {
                for (n, r) in rows.clone().enumerate() {
                    z[n * k + h..][..e].copy_from_slice(input.row(t, r));
                }
                let gates = match gates.get_mut(t) {
                    Some(gates) => &mut **gates,
                    None => &mut *own,
                };
                for (Block { columns, terms, .. }, weights) in &blocks {
                    let (z, bias) =
                        (MatRef { offset: terms.start, ..MatRef::row_major(z, k) }, &input.bias[columns.clone()]);
                    weights.product_bias(m, z, bias, &mut gates[columns.start..], sums, parallel);
                }
                for (n, r) in seq.active(rows, t) {
                    let (own, cell_own) = (n * h..(n + 1) * h, n * c..(n + 1) * c);
                    let (gates, z) = (&mut gates[n * sums..][..sums], &mut z[n * k..][..h]);
                    let (state, cell) = (&mut state[own.clone()], &mut cell[cell_own.clone()]);
                    network.forward(gates, state, cell, &mut hs[t][own], &mut cells[t][cell_own], z);
                    seq.mask_row(r, z);
                }
            }
        });
        zero_after_end(seq, rows, &mut hs, h);
        zero_after_end(seq, rows, &mut cells, c);
    });
}

/// Batch rows × steps whose sums' gradients are kept until they are multiplied into the weights' gradient.
const BLOCK: usize = 128;
/// Most sums of the weights' gradient that are made at once, and most elements of them.
const CHAINS: usize = 16;
const CHAIN_ELEMENTS: usize = 1 << 24;

/// Backpropagation through time.
///
/// The sums' gradients are never all in memory: a few steps of them are multiplied into `dW` while the cache holds them.
/// The batch is cut as in the forward pass, and the cut pieces' `dW` are added in order.
///
/// # Panics
/// If an array has the wrong length.
pub(super) fn backward<T: SeqFloat, C: Cell<T>>(
    network: C,
    seq: &Recurrence<T>,
    input: &SequenceInput<T>,
    saved: &Saved<T>,
    upstream: &UpstreamGradients<T>,
    gradients: Gradients<T>,
) {
    let sizes = Sizes::new::<T, C>(seq, input);
    let Sizes { h, c, e, k, sums } = sizes;
    let Gradients { d_x, d_h0, d_c0, d_w_hh, d_w_ih, d_bias } = gradients;
    start(d_h0, upstream.d_hn);
    start(d_c0, upstream.d_cn);
    if h == 0 {
        // There are no gates; no input matters.
        return d_x.into_iter().for_each(|d_x| d_x.fill(T::zero()));
    }
    let blocks = network.blocks(h, e).into_iter().map(|block| {
        let w = MatRef::row_major(input.w, k).at(block.row, block.terms.start);
        let packed = Packed::new(level(), w, block.columns.len(), block.terms.len());
        (block, packed)
    });
    let blocks: Vec<_> = blocks.collect();
    let weights: usize = blocks.iter().map(|(block, _)| block.weights()).sum();
    let pieces = seq.pieces(C::GATES);
    let d_x = optional(d_x, pieces.len(), |d_x| seq.split_rows(d_x, seq.t * e, &pieces));
    let states = seq.split_rows(d_h0, h, &pieces).into_iter().zip(seq.split_rows(d_c0, c, &pieces));
    let mut tasks: Vec<_> = pieces.iter().zip(d_x).zip(states).collect();

    let chains = (CHAIN_ELEMENTS / (weights + sums)).clamp(1, CHAINS);
    let each = pieces.len().div_ceil(chains).max(1);
    let mut partial = CpuBuffer::scratch::<T>(pieces.len().div_ceil(each) * (weights + sums));
    let partial = partial.as_mut_slice::<T>();
    let step = Backward { network, sizes, seq, input, saved, upstream, blocks, parallel: pieces.len() == 1 };
    tasks.par_chunks_mut(each).zip(partial.par_chunks_mut(weights + sums)).for_each(|(tasks, partial)| {
        partial.fill(T::zero());
        let (d_w, d_bias) = partial.split_at_mut(weights);
        for ((rows, d_x), (dh, dc)) in tasks {
            step.through_time(rows, std::mem::take(d_x), (dh, dc), (d_w, d_bias));
        }
    });

    for d in [&mut *d_w_hh, &mut *d_w_ih, &mut *d_bias] {
        d.fill(T::zero());
    }
    for partial in partial.chunks(weights + sums) {
        let (mut d_w, bias) = partial.split_at(weights);
        for (Block { columns, row, terms }, _) in &step.blocks {
            for n in *row..row + columns.len() {
                let (d, rest) = d_w.split_at(terms.len());
                let (hidden, x) = d.split_at(h.saturating_sub(terms.start).min(d.len()));
                d_w = rest;
                add(level(), &mut d_w_hh[n * h + terms.start.min(h)..][..hidden.len()], hidden);
                add(level(), &mut d_w_ih[n * e..][..x.len()], x);
            }
        }
        add(level(), d_bias, bias);
    }
}

simd_fn! {
    /// `y ← y + x`.
    fn add[S]<T: SeqFloat>(y: &mut [T], x: &[T]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
    }
}

/// What the pieces of a batch have in common on the way back.
struct Backward<'a, T: SeqFloat, C> {
    network: C,
    sizes: Sizes,
    seq: &'a Recurrence<'a, T>,
    input: &'a SequenceInput<'a, T>,
    saved: &'a Saved<'a, T>,
    upstream: &'a UpstreamGradients<'a, T>,
    blocks: Vec<(Block, Packed<T>)>,
    parallel: bool,
}

impl<T: SeqFloat, C: Cell<T>> Backward<'_, T, C> {
    /// One piece of the batch: `dh` and `dc` go from the gradients of the last state and cell to those of the first, and
    /// `d_w` and `d_bias` gain the piece's part. `d_x` `[rows, T, E]` is overwritten unless it is empty.
    fn through_time(
        &self,
        rows: &Range<usize>,
        d_x: &mut [T],
        (dh, dc): (&mut [T], &mut [T]),
        (d_w, d_bias): (&mut [T], &mut [T]),
    ) {
        let (seq, m, steps) = (self.seq, rows.len(), self.seq.t);
        let Sizes { h, c, e, k, sums } = self.sizes;
        let block = (BLOCK / m).max(1);
        // The product's columns: all, or those of the state alone.
        let wanted = if d_x.is_empty() { h } else { k };
        with_scratch(block * m * (sums + k) + m * wanted, |scratch: &mut [T]| {
            let (d, rest) = scratch.split_at_mut(block * m * sums);
            let (z, product) = rest.split_at_mut(block * m * k);
            let mut used = 0;
            let mut times = seq.steps(rows).rev().peekable();
            while let Some(t) = times.next() {
                let (d_t, z_t) = (&mut d[used * m * sums..][..m * sums], &mut z[used * m * k..][..m * k]);
                used += 1;
                if seq.lengths.is_some() {
                    // Nothing comes from the rows that are over.
                    d_t.fill(T::zero());
                    z_t.fill(T::zero());
                }
                for (n, r) in seq.active(rows, t) {
                    let (own, cell_own) = (n * h..(n + 1) * h, n * c..(n + 1) * c);
                    self.cell(
                        t,
                        r,
                        &mut dh[own],
                        &mut dc[cell_own],
                        &mut d_t[n * sums..][..sums],
                        &mut z_t[n * k..][..k],
                    );
                }
                if let Some(&t) = times.peek() {
                    self.prefetch(rows, t);
                }
                self.product(m, d_t, product, wanted);
                for (n, r) in seq.active(rows, t) {
                    let product = &mut product[n * wanted..][..h];
                    seq.mask_row(r, product);
                    add(level(), &mut dh[n * h..(n + 1) * h], product);
                }
                if !d_x.is_empty() {
                    for (n, product) in product.chunks_exact(wanted).enumerate() {
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

    /// One row of one step, up to its sums; and the `z` that they were made of.
    fn cell(&self, t: usize, r: usize, dh: &mut [T], dc: &mut [T], d: &mut [T], z: &mut [T]) {
        let (seq, saved, Sizes { h, c, sums, .. }) = (self.seq, self.saved, &self.sizes);
        let row = t * seq.b + r;
        let h_before = seq.before(saved.hs, saved.h0, *h, t, r);
        let (left, right) = z.split_at_mut(*h);
        left.copy_from_slice(h_before);
        seq.mask_row(r, left);
        right.copy_from_slice(self.input.row(t, r));
        if let Some(d_hs) = self.upstream.d_hs {
            add(level(), dh, &d_hs[row * h..][..*h]);
        }
        let step = Step {
            gates: if saved.gates.is_empty() { &[] } else { &saved.gates[row * sums..][..*sums] },
            h: &saved.hs[row * h..][..*h],
            c: &saved.cells[row * c..][..*c],
            h_before,
            c_before: seq.before(saved.cells, saved.c0, *c, t, r),
        };
        self.network.backward(&step, dh, dc, d);
    }

    /// Has the rows that step `t` will read brought into the cache, meanwhile.
    fn prefetch(&self, rows: &Range<usize>, t: usize) {
        let (seq, saved, Sizes { h, c, sums, .. }) = (self.seq, self.saved, &self.sizes);
        let all = |x: &[T], width: usize| {
            if let Some(x) = x.get((t * seq.b + rows.start) * width..(t * seq.b + rows.end) * width) {
                prefetch(x.as_ptr(), x.len());
            }
        };
        all(saved.gates, *sums);
        all(self.upstream.d_hs.unwrap_or_default(), *h);
        for r in rows.clone().filter(|&r| t < seq.length(r)) {
            for x in [
                seq.before(saved.hs, saved.h0, *h, t, r),
                seq.before(saved.cells, saved.c0, *c, t, r),
                self.input.row(t, r),
            ] {
                prefetch(x.as_ptr(), x.len());
            }
        }
    }

    /// `dz = Wᵀ d`, the first `wanted` columns.
    fn product(&self, m: usize, d: &[T], dz: &mut [T], wanted: usize) {
        let mut done = false;
        for (Block { columns, terms, .. }, weights) in &self.blocks {
            let n = terms.end.min(wanted).saturating_sub(terms.start);
            if n > 0 {
                let d = MatRef::row_major(d, self.sizes.sums).at(0, columns.start);
                // The first block has all of the terms.
                weights.part(m, (columns.len(), n), d, &mut dz[terms.start..], wanted, done, self.parallel);
                done = true;
            }
        }
    }

    /// `d_w += dᵀ z`, `d_bias += Σ d` over `n` rows.
    fn weights_gain(&self, n: usize, d: &[T], z: &[T], (mut d_w, d_bias): (&mut [T], &mut [T])) {
        let Sizes { k, sums, .. } = self.sizes;
        if n == 0 {
            return;
        }
        for (block, _) in &self.blocks {
            let (own, rest) = d_w.split_at_mut(block.weights());
            d_w = rest;
            let (columns, terms) = (block.columns.len(), block.terms.len());
            if terms > 0 {
                let left = MatRef::row_major(d, sums).at(0, block.columns.start).t();
                let right = MatRef::row_major(z, k).at(0, block.terms.start);
                gemm(columns, terms, n, left, right, own, terms, true, self.parallel);
            }
        }
        add_rows(level(), &d[..n * sums], d_bias);
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
