//! Packing: copies a block of `A` or `B` into the order in which the micro-kernel reads it.
//!
//! A block is cut into panels `width` wide. Panel `q` is contiguous from `q · width · steps` and holds, for each `p` below
//! `steps`, its `w` values side by side; `w` is `width`, or less for the last panel: nothing is padded.

use super::kernel::{Accumulator, Kernel};
use super::scheme::Scheme;
use super::{GemmElement, MatRef};
use crate::cpu::level::level;
use crate::cpu::scratch::with_scratch;

/// Panels that are packed together, to read long runs of a matrix whose panels lie side by side.
const GROUP: usize = 4;

/// Which operand is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `A`: a micro-kernel broadcasts its values.
    Left,
    /// `B`: a micro-kernel loads vectors of it.
    Right,
}

/// Packs `src`, whose rows run across the panels and whose columns are the terms of the sum, into
/// `dst[..total * steps]`, where `steps = ⌈k / DEPTH⌉`.
pub fn pack<S: Scheme<T>, T: GemmElement>(
    kernel: &Kernel<T::Acc>,
    side: Side,
    src: MatRef<T>,
    total: usize,
    k: usize,
    width: usize,
    dst: &mut [T::Acc],
) {
    let steps = k.div_ceil(S::DEPTH);
    let dst = &mut dst[..total * steps];
    for (g, dst) in dst.chunks_mut(GROUP * width * steps).enumerate() {
        let first = g * GROUP * width;
        S::pack(kernel, side, src.at(first, 0), (GROUP * width).min(total - first), k, width, dst);
    }
}

/// `to[j][i] = from[i][j]`, `from` of so many rows.
pub fn transpose<A: Accumulator>(from: &[A], rows: usize, to: &mut [A]) {
    let columns = from.len() / rows.max(1);
    assert!(from.len() == rows * columns && to.len() == from.len(), "transpose: lengths");
    // SAFETY: both slices have `rows · columns` values; the level is one that the CPU has.
    unsafe { (A::kernel(level().usable()).transpose)(from.as_ptr(), columns as isize, rows, columns, to.as_mut_ptr()) };
}

/// Neighbours across the panels are neighbours in memory: `put(i, p, out)` writes those from row `i` at step `p`.
pub fn runs<A>(total: usize, steps: usize, width: usize, dst: &mut [A], put: impl Fn(usize, usize, &mut [A])) {
    // With a length that the compiler knows a run is a few vector moves.
    match width {
        14 => runs_of::<14, A>(total, steps, dst, put),
        32 => runs_of::<32, A>(total, steps, dst, put),
        16 => runs_of::<16, A>(total, steps, dst, put),
        12 => runs_of::<12, A>(total, steps, dst, put),
        8 => runs_of::<8, A>(total, steps, dst, put),
        6 => runs_of::<6, A>(total, steps, dst, put),
        4 => runs_of::<4, A>(total, steps, dst, put),
        _ => short_runs(total, steps, width, 0, dst, put),
    }
}

#[inline(always)]
fn runs_of<const W: usize, A>(total: usize, steps: usize, dst: &mut [A], put: impl Fn(usize, usize, &mut [A])) {
    let whole = total / W;
    for p in 0..steps {
        for q in 0..whole {
            let out: &mut [A; W] = (&mut dst[(q * steps + p) * W..][..W]).try_into().expect("W values");
            put(q * W, p, out);
        }
    }
    short_runs(total, steps, W, whole, dst, put);
}

/// The panels from `panel` on.
fn short_runs<A>(
    total: usize,
    steps: usize,
    width: usize,
    panel: usize,
    dst: &mut [A],
    put: impl Fn(usize, usize, &mut [A]),
) {
    for q in panel..total.div_ceil(width) {
        let w = width.min(total - q * width);
        for p in 0..steps {
            put(q * width, p, &mut dst[q * width * steps + p * w..][..w]);
        }
    }
}

/// Any layout, value by value.
pub fn elements<A>(total: usize, steps: usize, width: usize, dst: &mut [A], get: impl Fn(usize, usize) -> A) {
    for (q, panel) in dst.chunks_mut(width * steps).enumerate() {
        let w = width.min(total - q * width);
        for (p, values) in panel.chunks_exact_mut(w).enumerate() {
            values.iter_mut().enumerate().for_each(|(i, v)| *v = get(q * width + i, p));
        }
    }
}

/// Rows are contiguous in memory, and hold what panels hold.
pub fn rows<A: Accumulator>(
    kernel: &Kernel<A>,
    src: MatRef<A>,
    total: usize,
    steps: usize,
    width: usize,
    dst: &mut [A],
) {
    for (q, panel) in dst.chunks_mut(width * steps).enumerate() {
        let (w, src) = (width.min(total - q * width), src.at(q * width, 0));
        let last = src.at(w - 1, 0).offset;
        assert!(panel.len() == w * steps && src.offset.max(last) + steps <= src.data.len());
        // SAFETY: rows `0..w` of `steps` values lie between the first and the last, both of which are inside the slice;
        // `panel` has `w * steps` values; the kernel's level was checked when it was chosen.
        unsafe { (kernel.transpose)(src.data.as_ptr().add(src.offset), src.rs, w, steps, panel.as_mut_ptr()) };
    }
}

/// Rows are contiguous in memory, and become what panels hold by `fill(i, p, out)`, which writes row `i` from step `p`:
/// a strip at a time, which stays in the L1 cache, and is then transposed.
pub fn strips<A: Accumulator>(
    kernel: &Kernel<A>,
    total: usize,
    steps: usize,
    width: usize,
    dst: &mut [A],
    fill: impl Fn(usize, usize, &mut [A]),
) {
    const STRIP: usize = 64;
    with_scratch(width * STRIP, |strip: &mut [A]| {
        for (q, panel) in dst.chunks_mut(width * steps).enumerate() {
            let w = width.min(total - q * width);
            for p in (0..steps).step_by(STRIP) {
                let len = STRIP.min(steps - p);
                for (i, row) in strip.chunks_exact_mut(STRIP).take(w).enumerate() {
                    fill(q * width + i, p, &mut row[..len]);
                }
                let dst = panel[p * w..][..len * w].as_mut_ptr();
                // SAFETY: `strip` holds `w` rows, `STRIP` apart, of at least `len` values; `dst` has `len * w`; the
                // kernel's level was checked when it was chosen.
                unsafe { (kernel.transpose)(strip.as_ptr(), STRIP as isize, w, len, dst) };
            }
        }
    });
}
