//! What a sequence looks like to the RNN, LSTM and GRU kernels: the order of time, lengths, and the cut of a batch into
//! rows.

use super::seq_math::{SeqFloat, take_front};
use std::ops::Range;

/// One layer and one direction of a recurrent network: everything but the inputs, the weights and the state.
///
/// Outputs and what is saved of them are `[T, B, …]`, contiguous; the inputs have strides of their own.
#[derive(Clone, Copy)]
pub struct Recurrence<'a, T> {
    /// `T`, time steps.
    pub t: usize,
    /// `B`, batch.
    pub b: usize,
    /// `H`, the size of the state.
    pub h: usize,
    /// Whether time runs backwards, from the last valid step of each row to step 0.
    pub reverse: bool,
    /// Valid steps of each row `[B]`. At the steps after them the state stays as it is and the output is zero.
    pub lengths: Option<&'a [usize]>,
    /// `[B, H]`: multiplies `h` before the recurrent product, the same at every step (Gal & Ghahramani 2016; Keras's
    /// `recurrent_dropout`). Holds `0` and `1 / (1 - p)`.
    pub recurrent_mask: Option<&'a [T]>,
}

/// The gradient of the state that a sequence's end hands back, and of what it gave out on the way. `None` is zero.
#[derive(Clone, Copy)]
pub struct UpstreamGradients<'a, T> {
    /// Of the outputs `[T, B, H]`; not looked at where a row has ended.
    pub d_hs: Option<&'a [T]>,
    /// Of the final state `[B, H]`.
    pub d_hn: Option<&'a [T]>,
    /// Of the LSTM's final cell `[B, H]`; the others have none.
    pub d_cn: Option<&'a [T]>,
}

impl<'a, T: SeqFloat> Recurrence<'a, T> {
    /// Checks what every kernel needs.
    pub(super) fn check(&self) {
        let Recurrence { b, h, .. } = *self;
        assert!(self.lengths.is_none_or(|l| l.len() == b), "there is one length per batch row");
        assert!(self.recurrent_mask.is_none_or(|m| m.len() == b * h), "the recurrent mask is [B, H]");
    }

    /// The batch, cut into rows that go through time together and independently of the others. The cut depends on the
    /// shape alone. Every step of every piece reads all the weights, so larger weights go with larger pieces.
    pub(super) fn pieces(&self, gates: usize) -> Vec<Range<usize>> {
        let size = match gates * self.h * self.h {
            0..=0x4000 => 16,
            0x4001..=0x40000 => 32,
            _ => 64,
        };
        (0..self.b).step_by(size).map(|r| r..(r + size).min(self.b)).collect()
    }

    /// The valid steps of batch row `r`.
    #[inline]
    pub(super) fn length(&self, r: usize) -> usize {
        self.lengths.map_or(self.t, |l| l[r].min(self.t))
    }

    /// The time steps in the order of the recurrence, up to the end of the longest of the rows.
    pub(super) fn steps(&self, rows: &Range<usize>) -> impl DoubleEndedIterator<Item = usize> + use<T> {
        let longest = rows.clone().map(|r| self.length(r)).max().unwrap_or(0);
        let reverse = self.reverse;
        (0..longest).map(move |s| if reverse { longest - 1 - s } else { s })
    }

    /// Row `r` `[width]` of a state before step `t`: from `xs` `[T, B, width]`, or `x0` `[B, width]` at the row's first
    /// step.
    #[inline]
    pub(super) fn before<'x>(&self, xs: &'x [T], x0: &'x [T], width: usize, t: usize, r: usize) -> &'x [T] {
        let (first, previous) =
            if self.reverse { (t + 1 == self.length(r), t + 1) } else { (t == 0, t.wrapping_sub(1)) };
        if first { &x0[r * width..][..width] } else { &xs[(previous * self.b + r) * width..][..width] }
    }

    /// Splits `x` `[T, B, width]` into `[piece][t]` slices `[rows, width]`.
    pub(super) fn split<'x>(&self, mut x: &'x mut [T], width: usize, pieces: &[Range<usize>]) -> Vec<Vec<&'x mut [T]>> {
        assert_eq!(x.len(), self.t * self.b * width, "the sequence is [T, B, {width}]");
        let mut out: Vec<Vec<_>> = pieces.iter().map(|_| Vec::with_capacity(self.t)).collect();
        for _ in 0..self.t {
            for (piece, rows) in out.iter_mut().zip(pieces) {
                piece.push(take_front(&mut x, rows.len() * width));
            }
        }
        out
    }

    /// Splits `x` `[B, width]` likewise.
    pub(super) fn split_rows<'x>(&self, mut x: &'x mut [T], width: usize, pieces: &[Range<usize>]) -> Vec<&'x mut [T]> {
        assert_eq!(x.len(), self.b * width, "the state is [B, {width}]");
        pieces.iter().map(|rows| take_front(&mut x, rows.len() * width)).collect()
    }

    /// The rows that have a step `t`: each one's place among `rows`, and its number in the batch.
    #[inline]
    pub(super) fn active(
        &self,
        rows: &Range<usize>,
        t: usize,
    ) -> impl Iterator<Item = (usize, usize)> + use<'_, 'a, T> {
        rows.clone().enumerate().filter(move |&(_, r)| t < self.length(r))
    }

    /// `x ← x ∘ mask` for batch row `r`.
    #[inline]
    pub(super) fn mask_row(&self, r: usize, x: &mut [T]) {
        if let Some(mask) = self.recurrent_mask {
            x.iter_mut().zip(&mask[r * self.h..]).for_each(|(x, &m)| *x *= m);
        }
    }
}

/// `state ← x`, or zero.
pub(super) fn start<T: SeqFloat>(state: &mut [T], x: Option<&[T]>) {
    match x {
        Some(x) => state.copy_from_slice(x),
        None => state.fill(T::zero()),
    }
}

/// `[T, B, width]` or `[B, width]` if there is such a buffer, empty otherwise: the pieces of an optional output.
pub(super) fn optional<'x, T, P: Default>(
    x: Option<&'x mut [T]>,
    pieces: usize,
    split: impl FnOnce(&'x mut [T]) -> Vec<P>,
) -> Vec<P> {
    match x {
        Some(x) => split(x),
        None => (0..pieces).map(|_| P::default()).collect(),
    }
}

/// Zeroes the steps that a row does not have.
pub(super) fn zero_after_end<T: SeqFloat>(seq: &Recurrence<T>, rows: &Range<usize>, xs: &mut [&mut [T]], width: usize) {
    for (n, r) in rows.clone().enumerate() {
        xs.iter_mut().skip(seq.length(r)).for_each(|x| x[n * width..(n + 1) * width].fill(T::zero()));
    }
}
