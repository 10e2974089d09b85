//! Packing: copies a block of `A` or `B` into the order in which the micro-kernel reads it.
//!
//! A block is cut into panels `width` wide. Panel `q` is contiguous from `q · width · k` and holds, for each `p` below
//! `k`, its `w` values side by side; `w` is `width`, or less for the last panel: nothing is padded.

use super::kernel::{Accumulator, Kernel};
use super::{GemmElement, MatRef, buffer};
use rayon::prelude::*;

/// Panels that are packed together, to read long runs of a matrix whose panels lie side by side.
const GROUP: usize = 8;

/// Elements that are worth packing in parallel.
const PARALLEL: usize = 1 << 16;

/// Packs `src`, whose rows run across the panels and whose columns are `p`, into `dst[..total * k]`.
pub fn pack<T: GemmElement>(
    kernel: &Kernel<T::Acc>,
    src: MatRef<T>,
    total: usize,
    k: usize,
    width: usize,
    dst: &mut [T::Acc],
    parallel: bool,
) {
    let dst = &mut dst[..total * k];
    let group = |(g, dst): (usize, &mut [T::Acc])| {
        let first = g * GROUP * width;
        pack_group(kernel, src.at(first, 0), (GROUP * width).min(total - first), k, width, dst);
    };
    let chunk = GROUP * width * k;
    if parallel && total > GROUP * width && total * k >= PARALLEL {
        dst.par_chunks_mut(chunk).enumerate().for_each(group);
    } else {
        dst.chunks_mut(chunk).enumerate().for_each(group);
    }
}

fn pack_group<T: GemmElement>(
    kernel: &Kernel<T::Acc>,
    src: MatRef<T>,
    total: usize,
    k: usize,
    width: usize,
    dst: &mut [T::Acc],
) {
    if src.rs == 1 {
        // Neighbours across the panels are neighbours in memory: copy runs.
        for p in 0..k {
            let start = src.at(0, p).offset;
            let run = &src.data[start..start + total];
            for (q, values) in run.chunks(width).enumerate() {
                let at = q * width * k + p * values.len();
                T::widen_slice(values, &mut dst[at..at + values.len()]);
            }
        }
        return;
    }
    for (q, panel) in dst.chunks_mut(width * k).enumerate() {
        let w = width.min(total - q * width);
        let src = src.at(q * width, 0);
        if src.cs == 1 {
            transpose_panel(kernel, src, w, k, panel);
        } else {
            for (p, values) in panel.chunks_exact_mut(w).enumerate() {
                for (i, v) in values.iter_mut().enumerate() {
                    *v = src.get(i, p).widen();
                }
            }
        }
    }
}

/// Packs one panel whose rows are contiguous in memory.
fn transpose_panel<T: GemmElement>(kernel: &Kernel<T::Acc>, src: MatRef<T>, w: usize, k: usize, panel: &mut [T::Acc]) {
    assert_eq!(panel.len(), w * k);
    if let Some(data) = T::as_acc(src.data) {
        let last = src.at(w - 1, 0).offset;
        assert!(src.offset + k <= data.len() && last + k <= data.len());
        // SAFETY: rows `0..w` of `k` elements lie between the first and the last, both of which are inside `data`;
        // `panel` has `w * k` elements; the kernel's level was checked when it was chosen.
        unsafe { (kernel.transpose)(data.as_ptr().add(src.offset), src.rs, w, k, panel.as_mut_ptr()) };
        return;
    }
    // Widen a strip that stays in the L1 cache, then transpose that.
    const STRIP: usize = 64;
    buffer::with(w * STRIP, |strip: &mut [T::Acc]| {
        for p in (0..k).step_by(STRIP) {
            let len = STRIP.min(k - p);
            for (i, row) in strip.chunks_exact_mut(STRIP).enumerate() {
                let start = src.at(i, p).offset;
                T::widen_slice(&src.data[start..start + len], &mut row[..len]);
            }
            // SAFETY: `strip` holds `w` rows, `STRIP` apart, of at least `len` elements; `panel` has `w * k` elements,
            // `(p + len) * w` at most are written; the kernel's level was checked when it was chosen.
            unsafe {
                (kernel.transpose)(strip.as_ptr(), STRIP as isize, w, len, panel[p * w..][..len * w].as_mut_ptr())
            };
        }
    });
}

/// Adds `sums` to what `out` holds, or replaces it, rounding once.
pub fn finish<T: GemmElement>(sums: &mut [T::Acc], out: &mut [T], accumulate: bool) {
    if accumulate {
        for (s, o) in sums.iter_mut().zip(out.iter()) {
            *s = T::Acc::add(*s, o.widen());
        }
    }
    T::narrow_slice(sums, out);
}
