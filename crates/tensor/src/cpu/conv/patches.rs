//! The matrix `X̂` of patches, packed for the product straight from the image.

use super::{ConvElement, Plan, Tile};
use crate::cpu::gemm::{Packed, Panel};
use crate::cpu::level::level;
use crate::cpu::simd::simd_fn;
use std::ops::Range;

/// What a tap of the kernel reads inside the image, of neighbours in a row of `X̂`.
#[derive(Clone, Copy)]
struct Run {
    /// Where it belongs among the columns that were asked for.
    at: usize,
    len: usize,
    /// Index of the first in the group's first channel; the next are the stride further each.
    source: usize,
}

/// The runs in a range of columns, for each tap.
#[derive(Default)]
struct Runs {
    all: Vec<Run>,
    /// Where each tap's runs end.
    ends: Vec<usize>,
    /// Do some columns see the padding?
    padded: bool,
}

impl Runs {
    fn of(&self, tap: usize) -> &[Run] {
        let first = if tap == 0 { 0 } else { self.ends[tap - 1] };
        &self.all[first..self.ends[tap]]
    }
}

/// `X̂ [k, columns]` for one group and a tile of the pixels: row `(c, a, b)`, column `(image, pixel)`.
pub(super) struct Patches<'a, T> {
    plan: &'a Plan,
    x: &'a [T],
    group: usize,
    tile: Tile,
}

/// Columns that are copied together before they are transposed: as many as stay in the L1 cache.
const STRIP: usize = 128;
/// Channels that are copied together: as many as keep what is written in the L1 cache.
const CHANNELS: usize = 16;

impl<'a, T: ConvElement> Patches<'a, T> {
    pub fn new(plan: &'a Plan, x: &'a [T], group: usize, tile: Tile) -> Self {
        Patches { plan, x, group, tile }
    }

    /// `X̂` as a right operand.
    pub fn pack(&self, parallel: bool) -> Packed<T> {
        let (k, n) = (self.plan.k(), self.tile.columns());
        Packed::fill(level(), k, n, parallel, |rows, columns, panel: Panel<T>| {
            let (mut runs, width) = (Runs::default(), columns.len());
            self.runs(columns, &mut runs);
            copy(level(), self, rows, &runs, panel.values, width);
        })
    }

    /// `X̂ᵀ` as a right operand.
    pub fn pack_transposed(&self, parallel: bool) -> Packed<T> {
        let (k, n) = (self.plan.k(), self.tile.columns());
        Packed::fill(level(), n, k, parallel, |columns, rows, mut panel: Panel<T>| {
            let mut runs = Runs::default();
            panel.transposed(columns.len(), STRIP, |part, strip, stride| {
                self.runs(columns.start + part.start..columns.start + part.end, &mut runs);
                copy(level(), self, rows.clone(), &runs, strip, stride);
            });
        })
    }

    /// The runs in the tile's columns `range` for each tap.
    fn runs(&self, range: Range<usize>, out: &mut Runs) {
        let (p, g, pixels) = (self.plan, &self.plan.geo, self.tile.pixels());
        out.all.clear();
        out.ends.clear();
        out.padded = false;
        for tap in 0..g.kh * g.kw {
            let mut column = range.start;
            while column < range.end {
                let (image, pixel) = (column / pixels, column % pixels);
                let end = pixels.min(pixel + range.end - column);
                let plane = ((self.tile.image + image) * g.c + self.group * p.cg()) * p.area();
                let (first, start) = (column - range.start, self.tile.start);
                p.segments(tap / g.kw, tap % g.kw, start + pixel, start + end, |s| {
                    let (lo, hi) = s.inside;
                    out.padded |= hi - lo < s.len;
                    if hi > lo {
                        out.all.push(Run { at: first + s.at + lo, len: hi - lo, source: plane + s.source });
                    }
                });
                column += end - pixel;
            }
            out.ends.push(out.all.len());
        }
    }
}

simd_fn! {
    /// Writes the columns of `runs` of some rows of `X̂` to `out`, rows `stride` apart.
    ///
    /// A run is copied for many channels in turn: its shape is looked at once.
    fn copy[S]<T: ConvElement>(x: &Patches<T>, rows: Range<usize>, runs: &Runs, out: &mut [T], stride: usize) {
        let (g, area) = (&x.plan.geo, x.plan.area());
        let taps = g.kh * g.kw;
        if runs.padded {
            out.fill(T::zero());
        }
        for block in (rows.start / taps..rows.end.div_ceil(taps)).step_by(CHANNELS) {
            for tap in 0..taps {
                // Not all taps of the first channel and of the last may be asked for.
                let first = block.max(rows.start.saturating_sub(tap).div_ceil(taps));
                let last = (block + CHANNELS).min(rows.end.saturating_sub(tap).div_ceil(taps));
                let Some(count) = last.checked_sub(first).filter(|&n| n > 0) else { continue };
                let to = &mut out[(first * taps + tap - rows.start) * stride..];
                for run in runs.of(tap) {
                    let each = Each { count, from_step: area, to_step: taps * stride, len: run.len };
                    let (from, to) = (&x.x[first * area + run.source..], &mut to[run.at..]);
                    match (g.stride.1, run.len) {
                        (1, 33..) => each.copy_long::<T, 32>(from, to),
                        (1, 16..) => each.copy::<T, 16>(from, to),
                        (1, 8..) => each.copy::<T, 8>(from, to),
                        (1, 4..) => each.copy::<T, 4>(from, to),
                        (1, 2..) => each.copy::<T, 2>(from, to),
                        (1, _) => each.copy::<T, 1>(from, to),
                        (step, _) => each.copy_apart(from, step, to),
                    }
                }
            }
        }
    }
}

/// A run of each of some channels.
#[derive(Clone, Copy)]
struct Each {
    count: usize,
    from_step: usize,
    to_step: usize,
    len: usize,
}

impl Each {
    /// Runs of `V` to `2V` elements, in two moves that overlap.
    #[inline(always)]
    fn copy<T: Copy, const V: usize>(self, from: &[T], to: &mut [T]) {
        assert!(V <= self.len && self.fits(from, to));
        let (mut from, mut to, last) = (from.as_ptr(), to.as_mut_ptr(), self.len - V);
        for _ in 0..self.count {
            // SAFETY: `fits`: all runs lie within the slices, and `last + V` is a run's length.
            unsafe {
                to.cast::<[T; V]>().write_unaligned(from.cast::<[T; V]>().read_unaligned());
                to.add(last).cast::<[T; V]>().write_unaligned(from.add(last).cast::<[T; V]>().read_unaligned());
            }
            (from, to) = (from.wrapping_add(self.from_step), to.wrapping_add(self.to_step));
        }
    }

    /// Do all runs lie within the slices?
    #[inline(always)]
    fn fits<T>(&self, from: &[T], to: &[T]) -> bool {
        let end = |step: usize| (self.count - 1) * step + self.len;
        self.count > 0 && end(self.from_step) <= from.len() && end(self.to_step) <= to.len()
    }

    /// Runs of at least `V` elements.
    #[inline(always)]
    fn copy_long<T: Copy, const V: usize>(self, from: &[T], to: &mut [T]) {
        for i in 0..self.count {
            let (from, to) = (&from[i * self.from_step..][..self.len], &mut to[i * self.to_step..][..self.len]);
            let mut move_at = |at: usize| {
                let values: &[T; V] = from[at..at + V].try_into().expect("V values");
                to[at..at + V].copy_from_slice(values);
            };
            (0..self.len - V).step_by(V).for_each(&mut move_at);
            move_at(self.len - V);
        }
    }

    /// Elements that are `step` apart in the image.
    #[inline(always)]
    fn copy_apart<T: Copy>(self, from: &[T], step: usize, to: &mut [T]) {
        for i in 0..self.count {
            let (from, to) = (&from[i * self.from_step..], &mut to[i * self.to_step..][..self.len]);
            to.iter_mut().zip(from.iter().step_by(step)).for_each(|(y, x)| *y = *x);
        }
    }
}
