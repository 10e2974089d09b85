//! One input channel per group: each output plane is a sum of shifted copies of one input plane.
//!
//! A plane with its padding around it is one long row, of which each tap of the kernel sees a shifted copy. All positions
//! of that row are computed, also those that lie between two windows or across two lines: there are few, and lanes of
//! neighbours cost less than finding the others. Zeros stand in the padding and, on the way back, between the windows: an
//! infinite weight or pixel that meets one gives NaN, as padding does in any product of patches.

use super::{ConvElement, Plan};
use crate::cpu::level::level;
use crate::cpu::parallel::*;
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::simd_fn;

/// Positions that are computed together: enough chains to cover the latency of the multiply-adds.
const LANES: usize = 32;

/// The positions of a padded plane.
struct Row<'a> {
    plan: &'a Plan,
    /// From one line to the next.
    line: usize,
    /// From the first window to the end of the last one's first tap.
    windows: usize,
    /// All of the padded plane.
    all: usize,
    /// The offset of each tap.
    taps: Vec<usize>,
}

impl Row<'_> {
    fn of(plan: &Plan) -> Row<'_> {
        let g = &plan.geo;
        let line = g.w + 2 * g.padding.1;
        Row {
            plan,
            line,
            windows: ((plan.ho - 1) * g.stride.0 * line + (plan.wo - 1) * g.stride.1 + 1).next_multiple_of(LANES),
            all: ((g.h + 2 * g.padding.0) * line).next_multiple_of(LANES),
            taps: (0..plan.k()).map(|t| t / g.kw * g.dilation.0 * line + t % g.kw * g.dilation.1).collect(),
        }
    }

    /// The last tap's offset.
    fn reach(&self) -> usize {
        self.taps[self.taps.len() - 1]
    }

    /// Calls `f` for each line of an image's plane with its index there and in the padded plane.
    fn lines(&self, mut f: impl FnMut(usize, usize)) {
        let g = &self.plan.geo;
        (0..g.h).for_each(|u| f(u * g.w, (u + g.padding.0) * self.line + g.padding.1));
    }

    /// Puts a plane in its place in the padded one, which has zeros elsewhere.
    fn pad<T: ConvElement>(&self, x: &[T], to: &mut [T]) {
        let width = self.plan.geo.w;
        self.lines(|from, at| to[at..at + width].copy_from_slice(&x[from..from + width]));
    }

    /// Puts each output where its window begins; there are zeros elsewhere.
    fn spread<T: ConvElement>(&self, y: &[T], to: &mut [T]) {
        let (down, across) = self.plan.geo.stride;
        for (i, y) in y.chunks_exact(self.plan.wo).enumerate() {
            to[i * down * self.line..].iter_mut().step_by(across).zip(y).for_each(|(to, &y)| *to = y);
        }
    }
}

/// `y_o = b_o + Σ_taps w[o, tap] · shift_tap(x_c)`.
pub(super) fn forward<T: ConvElement>(p: &Plan, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let (g, area, row, k) = (&p.geo, p.area(), Row::of(p), p.k());
    let (down, across) = g.stride;
    y.par_chunks_mut(p.pixels()).enumerate().for_each(|(i, y)| {
        let (image, o) = (i / g.o, i % g.o);
        let taps: Vec<_> = row.taps.iter().copied().zip(w[o * k..][..k].iter().copied()).collect();
        let bias = bias.map_or(T::zero(), |b| b[o]);
        with_scratch(row.all + row.reach() + row.windows, |buffer| {
            let (sums, padded) = buffer.split_at_mut(row.windows);
            padded.fill(T::zero());
            row.pad(&x[(image * g.c + o / p.og()) * area..][..area], padded);
            correlate(level(), &taps, padded, sums);
            for (i, y) in y.chunks_exact_mut(p.wo).enumerate() {
                let sums = sums[i * down * row.line..].iter().step_by(across);
                y.iter_mut().zip(sums).for_each(|(y, &s)| *y = s + bias);
            }
        });
    });
}

/// `dx_c = Σ_{o, taps} w[o, tap] · shift_tapᵀ(dy_o)`.
pub(super) fn input_grad<T: ConvElement>(p: &Plan, dy: &[T], w: &[T], dx: &mut [T]) {
    let (g, pixels, row, k, og) = (&p.geo, p.pixels(), Row::of(p), p.k(), p.og());
    // Each `dy_o` lies as far behind its row's start as its last tap leads back.
    let (reach, len) = (row.reach(), row.all + row.reach());
    dx.par_chunks_mut(p.area()).enumerate().for_each(|(i, dx)| {
        let (image, c) = (i / g.c, i % g.c);
        let offset = |t: usize| t / k * len + reach - row.taps[t % k];
        let taps: Vec<_> = w[c * og * k..][..og * k].iter().enumerate().map(|(t, &w)| (offset(t), w)).collect();
        with_scratch(row.all + og * len, |buffer| {
            let (sums, outputs) = buffer.split_at_mut(row.all);
            outputs.fill(T::zero());
            for (o, to) in outputs.chunks_exact_mut(len).enumerate() {
                row.spread(&dy[(image * g.o + c * og + o) * pixels..][..pixels], &mut to[reach..]);
            }
            correlate(level(), &taps, outputs, sums);
            row.lines(|to, at| dx[to..to + g.w].copy_from_slice(&sums[at..at + g.w]));
        });
    });
}

/// `dw[o, tap] = Σ_images ⟨dy_o, shift_tap(x_c)⟩`.
pub(super) fn weight_grad<T: ConvElement>(p: &Plan, x: &[T], dy: &[T], dw: &mut [T]) {
    let (g, area, pixels, row, k) = (&p.geo, p.area(), p.pixels(), Row::of(p), p.k());
    dw.par_chunks_mut(k).enumerate().for_each(|(o, dw)| {
        with_scratch(k * LANES + row.windows + row.all + row.reach(), |buffer| {
            buffer.fill(T::zero());
            let (sums, rest) = buffer.split_at_mut(k * LANES);
            let (outputs, padded) = rest.split_at_mut(row.windows);
            for image in 0..g.n {
                row.pad(&x[(image * g.c + o / p.og()) * area..][..area], padded);
                row.spread(&dy[(image * g.o + o) * pixels..][..pixels], outputs);
                add_products(level(), outputs, padded, &row.taps, sums);
            }
            for (dw, sums) in dw.iter_mut().zip(sums.chunks_exact(LANES)) {
                *dw = sums.iter().fold(T::zero(), |sum, &s| sum + s);
            }
        });
    });
}

simd_fn! {
    /// `y[t] = Σ a · x[t + offset]` over the taps `(offset, a)`.
    fn correlate[S]<T: ConvElement>(taps: &[(usize, T)], x: &[T], y: &mut [T]) {
        for (q, y) in y.chunks_exact_mut(LANES).enumerate() {
            let mut sums = [T::zero(); LANES];
            for &(offset, a) in taps {
                let x = &x[q * LANES + offset..][..LANES];
                for l in 0..LANES {
                    sums[l] = S::mul_add(a, x[l], sums[l]);
                }
            }
            y.copy_from_slice(&sums);
        }
    }
}

simd_fn! {
    /// `sums[tap, t mod LANES] += y[t] · x[t + offset]` for each tap's offset.
    fn add_products[S]<T: ConvElement>(y: &[T], x: &[T], offsets: &[usize], sums: &mut [T]) {
        for (&offset, kept) in offsets.iter().zip(sums.chunks_exact_mut(LANES)) {
            let mut sums = [T::zero(); LANES];
            sums.copy_from_slice(kept);
            for (y, x) in y.chunks_exact(LANES).zip(x[offset..].chunks_exact(LANES)) {
                for l in 0..LANES {
                    sums[l] = S::mul_add(y[l], x[l], sums[l]);
                }
            }
            kept.copy_from_slice(&sums);
        }
    }
}
