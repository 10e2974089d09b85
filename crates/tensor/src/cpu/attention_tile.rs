//! What the forward and the backward attention kernels share: operands, masks, dropout and the cut into tiles.

use super::gemm::{GemmElement, MatRef};
use super::half::Half;
use super::level::level;
use super::seq_math::{SeqFloat, real, scale};
use super::simd::simd_fn;
use num_traits::Float;
use std::marker::PhantomData;
use std::ops::Range;

/// What queries, keys and values are made of. Scores, sums and statistics are of the type [`Acc`](GemmElement::Acc).
pub trait AttentionElement: GemmElement<Acc: SeqFloat> {
    /// A tile of sums as an operand of a further product: rounded into `room`, which is as long, or the sums themselves
    /// if they are of this type.
    fn operand<'a>(sums: &'a [Self::Acc], room: &'a mut [Self]) -> &'a [Self];
    /// The length of that room for `len` sums.
    fn room(len: usize) -> usize {
        if Self::SAME { 0 } else { len }
    }
    /// Leaves of the sums what [`operand`](AttentionElement::operand) took off them. It is the second of two operands that
    /// together are as exact as two of `Self` can be: 16 bits of bf16.
    fn remainder(sums: &mut [Self::Acc], operand: &[Self]) {
        let _ = (sums, operand);
    }
}
impl<T: SeqFloat> AttentionElement for T {
    fn operand<'a>(sums: &'a [T], _: &'a mut [T]) -> &'a [T] {
        sums
    }
}
/// On a CPU that multiplies bf16.
impl AttentionElement for half::bf16 {
    fn operand<'a>(sums: &'a [f32], room: &'a mut [Self]) -> &'a [Self] {
        Self::narrow(sums, room);
        room
    }
    fn remainder(sums: &mut [f32], operand: &[Self]) {
        subtract_bf16(level(), sums, operand)
    }
}

simd_fn! {
    fn subtract_bf16[S](sums: &mut [f32], operand: &[half::bf16]) {
        sums.iter_mut().zip(operand).for_each(|(s, o)| *s -= o.widen());
    }
}

/// A four-dimensional array inside a slice: element `(b, h, i, j)` is `data[offset + b·s₀ + h·s₁ + i·s₂ + j·s₃]`.
/// Strides may be zero (broadcast) or negative.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a, T> {
    /// The storage.
    pub data: &'a [T],
    /// Index of element `(0, 0, 0, 0)`.
    pub offset: usize,
    /// Strides of the four dimensions, in elements.
    pub strides: [isize; 4],
}

impl<'a, T: Copy> Operand<'a, T> {
    /// A contiguous (row-major) array of the shape `dims`.
    pub fn contiguous(data: &'a [T], dims: [usize; 4]) -> Self {
        let [_, h, i, j] = dims.map(|d| d as isize);
        Operand { data, offset: 0, strides: [h * i * j, i * j, j, 1] }
    }
    /// Index of `(b, h, i, 0)`.
    #[inline]
    fn index(&self, b: usize, h: usize, i: usize) -> usize {
        let [sb, sh, si, _] = self.strides;
        (self.offset as isize + b as isize * sb + h as isize * sh + i as isize * si) as usize
    }
    /// The matrix `[T, D]` of head `(b, h)` from its row `i` on.
    #[inline]
    pub(super) fn matrix(&self, b: usize, h: usize, i: usize) -> MatRef<'a, T> {
        MatRef { data: self.data, offset: self.index(b, h, i), rs: self.strides[2], cs: self.strides[3] }
    }
    /// Row `(b, h, i)` from its element `j` on, `len` elements.
    #[inline]
    pub(super) fn row(&self, b: usize, h: usize, i: usize, j: usize, len: usize) -> Row<'a, T> {
        let start = (self.index(b, h, i) as isize + j as isize * self.strides[3]) as usize;
        match (self.strides[3], len) {
            (_, 0) => Row::Slice(&[]),
            (1, _) => Row::Slice(&self.data[start..start + len]),
            (stride, _) => Row::Strided { data: self.data, start, stride },
        }
    }
}

/// A row of an [`Operand`].
#[derive(Clone, Copy)]
pub(super) enum Row<'a, T> {
    Slice(&'a [T]),
    Strided { data: &'a [T], start: usize, stride: isize },
}

impl<T: Copy> Row<'_, T> {
    /// Calls `f(&mut x[j], row[j])` for every `j`.
    #[inline(always)]
    pub(super) fn zip_into<X>(self, x: &mut [X], mut f: impl FnMut(&mut X, T)) {
        match self {
            Row::Slice(row) => x.iter_mut().zip(row).for_each(|(x, &v)| f(x, v)),
            Row::Strided { data, start, stride } => {
                for (j, x) in x.iter_mut().enumerate() {
                    f(x, data[(start as isize + j as isize * stride) as usize]);
                }
            }
        }
    }
    /// Widens the row.
    pub(super) fn widen_into(self, out: &mut [T::Acc])
    where
        T: GemmElement,
    {
        match self {
            Row::Slice(row) => T::widen_slice(row, out),
            strided => strided.zip_into(out, |o, v| *o = v.widen()),
        }
    }
    /// Whether `f` holds for each of the row's first `len` elements.
    fn all(self, len: usize, f: impl Fn(T) -> bool) -> bool {
        match self {
            Row::Slice(row) => row.iter().all(|&v| f(v)),
            Row::Strided { data, start, stride } => {
                (0..len).all(|j| f(data[(start as isize + j as isize * stride) as usize]))
            }
        }
    }
}

/// An array `[B, H, T, D]` that is written by several threads, each of them some rows.
pub struct Output<'a, T> {
    first: *mut T,
    dims: [usize; 4],
    strides: [usize; 3],
    lifetime: PhantomData<&'a mut [T]>,
}
// SAFETY: it is a slice of which a thread uses only rows that are its own; see `row`.
unsafe impl<T: Send> Send for Output<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Output<'_, T> {}

impl<'a, T> Output<'a, T> {
    /// `data` as an array of the shape `dims`, row-major or, if `time_first`, with the order `[B, T, H, D]` in memory,
    /// which puts the heads of a token side by side.
    ///
    /// # Panics
    /// If it has another length.
    pub fn new(data: &'a mut [T], dims: [usize; 4], time_first: bool) -> Self {
        let [b, h, t, d] = dims;
        assert_eq!(data.len(), b * h * t * d, "attention: an output of {dims:?}");
        let strides = if time_first { [t * h * d, d, h * d] } else { [h * t * d, t * d, d] };
        Output { first: data.as_mut_ptr(), dims, strides, lifetime: PhantomData }
    }
    /// The shape `[B, H, T, D]`.
    pub(super) fn dims(&self) -> [usize; 4] {
        self.dims
    }
    /// Row `(b, h, i)` becomes `sums`, rounded.
    ///
    /// # Safety
    /// Nobody else reads or writes this row meanwhile.
    pub(super) unsafe fn write(&self, [b, h, i]: [usize; 3], sums: &mut [T::Acc])
    where
        T: AttentionElement,
    {
        let ([sb, sh, si], [nb, nh, ni, d]) = (self.strides, self.dims);
        assert!(b < nb && h < nh && i < ni && sums.len() == d, "attention: ({b}, {h}, {i}) of {:?}", self.dims);
        // SAFETY: this row lies inside the slice, whose length `new` checked; by the promise above it is ours.
        let row = unsafe { std::slice::from_raw_parts_mut(self.first.add(b * sb + h * sh + i * si), d) };
        T::round(sums, row, false);
    }
}

/// A mask over the scores, broadcast over `[B, H, Tq, Tk]` by strides of zero.
#[derive(Clone, Copy, Debug)]
pub enum AttentionMask<'a, T> {
    /// Added to the scaled scores: `-∞` forbids, any other number is a bias (ALiBi, relative positions).
    Additive(Operand<'a, T>),
    /// `true` where a query may attend to a key.
    Boolean(Operand<'a, bool>),
}

/// Which attention weights survive dropout. A `Fn(u64) -> bool` is one.
///
/// The forward and the backward pass ask for the same elements, in different orders: the answer must depend on the
/// index alone (a counter-based generator).
pub trait DropoutMask: Sync {
    /// Whether the weight with this row-major index into `[B, H, Tq, Tk]` is kept.
    fn keep(&self, index: u64) -> bool;
    /// The same for `out.len()` consecutive weights from `start`; worth overriding where a generator makes several at
    /// once.
    fn keep_row(&self, start: u64, out: &mut [bool]) {
        for (j, k) in out.iter_mut().enumerate() {
            *k = self.keep(start + j as u64);
        }
    }
}
impl<F: Fn(u64) -> bool + Sync> DropoutMask for F {
    fn keep(&self, index: u64) -> bool {
        self(index)
    }
}

/// Dropout of attention weights: kept weights are divided by `1 - p` (Srivastava et al. 2014, in its inverted form).
#[derive(Clone, Copy)]
pub struct AttentionDropout<'a> {
    /// The probability with which `mask` drops a weight, in `[0, 1]`.
    pub p: f64,
    /// Which weights are kept.
    pub mask: &'a dyn DropoutMask,
}

impl AttentionDropout<'_> {
    /// The factor of a kept weight; zero when everything is dropped.
    pub(super) fn factor<T: SeqFloat>(&self) -> T {
        if self.p < 1.0 { real(1.0 / (1.0 - self.p)) } else { T::zero() }
    }
}

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// `B`, batch.
    pub b: usize,
    /// `H`, heads of the queries.
    pub h: usize,
    /// `Hₖ`, heads of the keys and values; divides `H`. Query head `h` uses key head `h / (H / Hₖ)`.
    pub hk: usize,
    /// `Tq`, queries.
    pub tq: usize,
    /// `Tk`, keys.
    pub tk: usize,
    /// `D`, the size of a query and of a key.
    pub d: usize,
    /// `Dᵥ`, the size of a value.
    pub dv: usize,
}

/// The arguments of an attention, for the forward and the backward pass alike.
#[derive(Clone, Copy)]
pub struct Attention<'a, T: GemmElement> {
    /// The sizes.
    pub shape: AttentionShape,
    /// `[B, H, Tq, D]`.
    pub q: Operand<'a, T>,
    /// `[B, Hₖ, Tk, D]`.
    pub k: Operand<'a, T>,
    /// `[B, Hₖ, Tk, Dᵥ]`.
    pub v: Operand<'a, T>,
    /// The factor of the scores, usually `1 / √D`.
    pub scale: T::Acc,
    /// `Some(offset)`: query `i` sees the keys `j ≤ i + offset`. Zero is PyTorch's `is_causal` (aligned at the top
    /// left, also when `Tq ≠ Tk`); decoding with a cache of `n` earlier keys has the offset `n`.
    pub causal: Option<isize>,
    /// `Some(window)`, with `causal`: query `i` sees the keys `j > i + offset − window` only.
    pub window: Option<usize>,
    /// How many of each batch's keys are there, at most `Tk`; those behind are padding, and nobody looks at them.
    pub key_lengths: Option<&'a [usize]>,
    /// A mask over `[B, H, Tq, Tk]`; with `causal`, both hold.
    pub mask: Option<AttentionMask<'a, T::Acc>>,
    /// Dropout of the weights.
    pub dropout: Option<AttentionDropout<'a>>,
}

impl<T: AttentionElement> Attention<'_, T> {
    /// Query heads per key head.
    pub(super) fn group(&self) -> usize {
        let AttentionShape { h, hk, .. } = self.shape;
        assert!(h.is_multiple_of(hk), "attention: {h} query heads are not a multiple of {hk} key heads");
        h.checked_div(hk).unwrap_or(0)
    }

    /// Cuts the `group · Tq` query rows that share a key head into blocks of at most `size` rows. Row `r` is query `r %
    /// Tq` of the group's head `r / Tq`. A block stays within a head unless the whole head is smaller than a block, as
    /// in decoding, where the group's heads then share one pass over the keys.
    pub(super) fn row_blocks(&self, size: usize) -> Vec<Range<usize>> {
        let (group, tq) = (self.group(), self.shape.tq);
        if tq == 0 {
            return Vec::new();
        }
        let (span, step) = if tq <= size { (group * tq, size / tq * tq) } else { (tq, size) };
        let mut blocks = Vec::new();
        for start in (0..group * tq).step_by(span.max(1)) {
            for r in (start..start + span).step_by(step) {
                blocks.push(r..(r + step).min(start + span));
            }
        }
        blocks
    }

    /// The keys that query `i` of batch `b` sees.
    #[inline]
    pub(super) fn visible(&self, b: usize, i: usize) -> Range<usize> {
        let there = self.key_lengths.map_or(self.shape.tk, |lengths| lengths[b]);
        let Some(offset) = self.causal else { return 0..there };
        // Behind the last key, too, the window is counted back from where causality ends.
        let causal = (i as isize).saturating_add(offset).saturating_add(1);
        let start = self.window.map_or(0, |window| causal.saturating_sub_unsigned(window));
        let end = causal.clamp(0, there as isize);
        start.clamp(0, end) as usize..end as usize
    }

    /// Those of them in a tile of `n` keys from `j` on, counted from there.
    #[inline]
    pub(super) fn visible_in(&self, (b, i): (usize, usize), j: usize, n: usize) -> Range<usize> {
        let Range { start, end } = self.visible(b, i);
        let end = end.saturating_sub(j).min(n);
        start.saturating_sub(j).min(end)..end
    }

    /// From the first to the last key that any of the rows sees. A block begins with its first query and ends with its last, also
    /// if it spans several heads.
    pub(super) fn visible_to_any(&self, b: usize, rows: &Range<usize>) -> Range<usize> {
        let tq = self.shape.tq;
        self.visible(b, rows.start % tq).start..self.visible(b, (rows.end - 1) % tq).end
    }

    /// The head and the query of row `r` of key head `hk`.
    #[inline]
    pub(super) fn head_and_query(&self, hk: usize, r: usize) -> (usize, usize) {
        (hk * self.group() + r / self.shape.tq, r % self.shape.tq)
    }

    /// Whether the mask forbids keys `j..j + n` to all of the rows. Only looks at masks that are the same for every
    /// query (padding), where it is cheap; "no" is always a correct answer.
    pub(super) fn tile_is_masked(&self, b: usize, hk: usize, rows: &Range<usize>, j: usize, n: usize) -> bool {
        let strides = match &self.mask {
            None => return false,
            Some(AttentionMask::Additive(m)) => m.strides,
            Some(AttentionMask::Boolean(m)) => m.strides,
        };
        if strides[2] != 0 {
            return false;
        }
        let (first, _) = self.head_and_query(hk, rows.start);
        let last = if strides[1] == 0 { first } else { self.head_and_query(hk, rows.end - 1).0 };
        (first..=last).all(|h| match &self.mask {
            Some(AttentionMask::Additive(m)) => m.row(b, h, 0, j, n).all(n, |v| v == T::Acc::neg_infinity()),
            Some(AttentionMask::Boolean(m)) => m.row(b, h, 0, j, n).all(n, |may| !may),
            None => false,
        })
    }

    /// Row-major index of `(b, h, i, j)` in `[B, H, Tq, Tk]`.
    #[inline]
    pub(super) fn weight_index(&self, b: usize, h: usize, i: usize, j: usize) -> u64 {
        let AttentionShape { h: heads, tq, tk, .. } = self.shape;
        ((b * heads + h) as u64 * tq as u64 + i as u64) * tk as u64 + j as u64
    }

    /// Copies rows of `x` `[B, H, Tq, width]` to `out` `[rows, width]`.
    pub(super) fn gather_rows(
        &self,
        x: &Operand<T>,
        (b, hk): (usize, usize),
        rows: &Range<usize>,
        width: usize,
        out: &mut [T],
    ) {
        for (n, r) in rows.clone().enumerate() {
            let (h, i) = self.head_and_query(hk, r);
            x.row(b, h, i, 0, width).zip_into(&mut out[n * width..(n + 1) * width], |o, v| *o = v);
        }
    }
}

simd_fn! {
    /// Turns the products `s` of query `(b, h, i)` with the keys from `j` on, at `[b, h, i, j]`, into scores, `scale · s + mask`.
    pub(super) fn score_row[S]<T: AttentionElement>(
        args: &Attention<T>,
        at: [usize; 4],
        s: &mut [T::Acc],
    ) {
        let ([b, h, i, j], factor) = (at, args.scale);
        match &args.mask {
            None => scale(s, factor),
            Some(AttentionMask::Additive(m)) => {
                m.row(b, h, i, j, s.len()).zip_into(s, |s, v| *s = *s * factor + v)
            }
            Some(AttentionMask::Boolean(m)) => {
                let never = T::Acc::neg_infinity();
                m.row(b, h, i, j, s.len()).zip_into(s, |s, may| *s = if may { *s * factor } else { never })
            }
        }
    }
}
