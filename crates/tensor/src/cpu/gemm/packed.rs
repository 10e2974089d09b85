//! A right operand that is packed before its product: once for many, as the recurrent weights that every step multiplies
//! by, or from what is no matrix, as the patches of a convolution.

use super::blocked::{
    Block, KC_BYTES, Output, Start, even, in_pieces, readable_in_place, tasks_for, threads_for, tiles,
};
use super::kernel::{Accumulator, Kernel};
use super::pack::{Side, pack};
use super::scheme::{Scheme, Widened};
use super::{GemmElement, MatRef};
use crate::cpu::level::Level;
use crate::cpu::parallel::*;
use crate::cpu::scratch::with_scratch;
use crate::storage::CpuBuffer;
use std::ops::Range;

/// A right operand that is packed once, for many products.
pub struct Packed<T: GemmElement> {
    kernel: Kernel<T::Acc>,
    /// Packed by the scheme [`GemmElement::Fast`], not [`GemmElement::Plain`].
    fast: bool,
    panels: CpuBuffer,
    k: usize,
    n: usize,
}

/// The part of a right operand `[k, n]` that one panel holds, to be filled in: some of its rows and columns.
pub struct Panel<'a, T> {
    /// Row after row.
    pub values: &'a mut [T],
    kernel: Kernel<T>,
}

impl<T: Accumulator> Panel<'_, T> {
    /// Fills the panel's `rows` rows from what is at hand transposed: `fill(part, strip, stride)` writes the rows `part`
    /// of the panel, at most `most` of them, as columns: those of one column of the panel side by side, and `stride`
    /// further those of the next.
    pub fn transposed(&mut self, rows: usize, most: usize, mut fill: impl FnMut(Range<usize>, &mut [T], usize)) {
        let (width, stride) = (self.values.len() / rows, most);
        with_scratch(width * stride, |strip: &mut [T]| {
            for p in (0..rows).step_by(most) {
                let part = p..rows.min(p + most);
                fill(part.clone(), strip, stride);
                let to = self.values[p * width..part.end * width].as_mut_ptr();
                // SAFETY: `strip` holds `width` runs, `stride` apart, of at least `part.len()` values; `to` has room for
                // all of them; the kernel's level was checked when it was chosen.
                unsafe { (self.kernel.transpose)(strip.as_ptr(), stride as isize, width, part.len(), to) };
            }
        });
    }
}

impl<T: GemmElement> Packed<T> {
    /// Packs `b`, `[k, n]`.
    pub fn new(level: Level, b: MatRef<T>, k: usize, n: usize) -> Packed<T> {
        let level = level.usable();
        match T::fast(level) {
            true => Self::by::<T::Fast>(level, true, b, k, n),
            false => Self::by::<T::Plain>(level, false, b, k, n),
        }
    }

    fn by<S: Scheme<T>>(level: Level, fast: bool, b: MatRef<T>, k: usize, n: usize) -> Packed<T> {
        const { assert!(!S::OFFSET, "the sums would have to be corrected") };
        let mut packed = Self::empty::<S>(level, fast, k, n);
        if k * n > 0 {
            b.check("B", k, n);
            let (depth, data) = (Self::depth::<S>(k), packed.panels.as_mut_slice::<T::Acc>());
            for p in (0..k).step_by(depth) {
                let (b, kc, kernel, panels) =
                    (b.at(p, 0).t(), depth.min(k - p), &packed.kernel, &mut data[p / S::DEPTH * n..]);
                pack::<S, T>(kernel, Side::Right, b, n, kc, kernel.nr, panels);
            }
        }
        packed
    }

    /// Room for `[k, n]`, of unspecified value.
    fn empty<S: Scheme<T>>(level: Level, fast: bool, k: usize, n: usize) -> Packed<T> {
        let len = k.div_ceil(S::DEPTH).checked_mul(n);
        let len = len.expect("gemm: a packed operand has more elements than memory can address");
        Packed { kernel: S::kernel(level), fast, panels: CpuBuffer::scratch::<T::Acc>(len), k, n }
    }

    /// Terms of the sums that are packed together.
    fn depth<S: Scheme<T>>(k: usize) -> usize {
        even(k.div_ceil(S::DEPTH), KC_BYTES / size_of::<T::Acc>(), 1) * S::DEPTH
    }

    /// `C = A·B` (or `C += A·B`), A is `[m, k]`, C is `[m, n]` with rows `ldc` apart; as [`gemm`](super::gemm).
    ///
    /// # Panics
    /// As [`gemm`](super::gemm).
    pub fn product(&self, m: usize, a: MatRef<T>, c: &mut [T::Acc], ldc: usize, accumulate: bool, parallel: bool) {
        self.part(m, (self.k, self.n), a, c, ldc, accumulate, parallel)
    }

    /// `C = A·B + bias`, with a bias `[n]` that is added to each row; C's rows are `ldc` apart.
    ///
    /// # Panics
    /// As [`gemm_bias`](super::gemm_bias).
    pub fn product_bias(&self, m: usize, a: MatRef<T>, bias: &[T::Acc], c: &mut [T::Acc], ldc: usize, parallel: bool) {
        assert_eq!(bias.len(), self.n, "gemm: the bias is [n]");
        self.run(m, (self.k, self.n), a, c, ldc, Start { accumulate: false, bias: Some(bias) }, parallel)
    }

    /// [`product`](Packed::product) with the first `k` rows and `n` columns of B alone. (Where values are packed in pairs and
    /// `k` is odd, row `k` is multiplied by zero: what is not finite there makes NaN.)
    ///
    /// # Panics
    /// As there, or if B has fewer.
    pub fn part(
        &self,
        m: usize,
        (k, n): (usize, usize),
        a: MatRef<T>,
        c: &mut [T::Acc],
        ldc: usize,
        accumulate: bool,
        parallel: bool,
    ) {
        self.run(m, (k, n), a, c, ldc, Start { accumulate, bias: None }, parallel)
    }

    fn run(
        &self,
        m: usize,
        (k, n): (usize, usize),
        a: MatRef<T>,
        c: &mut [T::Acc],
        ldc: usize,
        start: Start<T::Acc>,
        parallel: bool,
    ) {
        assert!(k <= self.k && n <= self.n, "gemm: B is {} × {}, not {k} × {n}", self.k, self.n);
        if m * n == 0 {
            return;
        }
        let c_len = (m - 1).checked_mul(ldc).and_then(|rows| rows.checked_add(n));
        assert!(ldc >= n && c_len.is_some_and(|len| len <= c.len()), "gemm: C is too small");
        if k == 0 {
            if !start.accumulate {
                c.chunks_mut(ldc).take(m).for_each(|row| match start.bias {
                    Some(bias) => row[..n].copy_from_slice(&bias[..n]),
                    None => row[..n].fill(T::Acc::ZERO),
                });
            }
            return;
        }
        a.check("A", m, k);
        let tasks = tasks_for(m * n * k, threads_for(m * n * k, parallel));
        let cuts = if n >= m { (1, tasks) } else { (tasks, 1) };
        in_pieces(
            (self.kernel.mr, self.kernel.nr),
            (m, n),
            cuts,
            Output { c: c.as_mut_ptr(), ldc },
            |rows, columns, out| {
                let (a, bias) = (a.at(rows.start, 0), start.bias.map(|bias| &bias[columns.clone()]));
                let start = Start { bias, ..start };
                match self.fast {
                    true => self.blocks::<T::Fast>((rows.len(), k), columns, a, out, start),
                    false => self.blocks::<T::Plain>((rows.len(), k), columns, a, out, start),
                }
            },
        );
    }

    /// The product with some columns of B, from a panel's first on, by the scheme by which B is packed; all sizes have
    /// been checked.
    fn blocks<S: Scheme<T>>(
        &self,
        (m, k): (usize, usize),
        columns: Range<usize>,
        a: MatRef<T>,
        out: Output<T::Acc>,
        start: Start<T::Acc>,
    ) {
        let (kernel, depth, panels) = (&self.kernel, Self::depth::<S>(self.k), self.panels.as_slice::<T::Acc>());
        let (first, n) = (columns.start, columns.len());
        let most = depth.min(k).div_ceil(S::DEPTH);
        let direct = S::direct(a, k).filter(|&a| readable_in_place(kernel, a, (m, n, most)));
        with_scratch(if direct.is_some() { 0 } else { m * most }, |buf: &mut [T::Acc]| {
            for p in (0..k).step_by(depth) {
                let terms = depth.min(k - p);
                let steps = terms.div_ceil(S::DEPTH);
                let a_block = match direct {
                    Some(a) => Block::Direct(a.at(0, p / S::DEPTH)),
                    None => {
                        pack::<S, T>(kernel, Side::Left, a.at(0, p), m, terms, kernel.mr, buf);
                        Block::Packed { data: &*buf, total: m, steps }
                    }
                };
                let held = depth.min(self.k - p).div_ceil(S::DEPTH);
                let panels = &panels[p / S::DEPTH * self.n + first * held..];
                let b_block = Block::Packed { data: panels, total: self.n - first, steps: held };
                let bias = start.bias.filter(|_| p == 0);
                let start = Start { accumulate: start.accumulate || p > 0, bias };
                tiles(kernel, (m, n, steps), a_block, b_block, out, start);
            }
        });
    }
}

impl<T: Accumulator + GemmElement<Acc = T>> Packed<T> {
    /// A right operand `[k, n]` that no matrix holds: `fill(rows, columns, panel)` writes the part that a panel is made
    /// of. The threads share the panels if `parallel`.
    pub fn fill(
        level: Level,
        k: usize,
        n: usize,
        parallel: bool,
        fill: impl Fn(Range<usize>, Range<usize>, Panel<T>) + Sync,
    ) -> Packed<T> {
        let mut packed = Self::empty::<Widened>(level.usable(), false, k, n);
        let depth = Self::depth::<Widened>(k).max(1);
        let (kernel, mut rest) = (packed.kernel, packed.panels.as_mut_slice::<T>());
        for p in (0..if n > 0 { k } else { 0 }).step_by(depth) {
            let rows = p..k.min(p + depth);
            let block = rest.split_off_mut(..rows.len() * n).expect("room for k × n");
            let one = |(q, values): (usize, &mut [T])| {
                let columns = q * kernel.nr..n.min((q + 1) * kernel.nr);
                fill(rows.clone(), columns, Panel { values, kernel });
            };
            let panel = kernel.nr * rows.len();
            if parallel {
                block.par_chunks_mut(panel).enumerate().for_each(one);
            } else {
                block.chunks_mut(panel).enumerate().for_each(one);
            }
        }
        packed
    }
}
