//! The maximum over windows.

use super::{Maximum, Pool2dGeometry, PoolElement};
use crate::cpu::level::level;
use crate::cpu::parallel::*;
use crate::cpu::simd::simd_fn;
use std::ops::Range;

/// `y[i, j] = max_{a, b} x[i·s + a·d − p, j·s + b·d − p]` in each plane, over the taps inside it (padding is −∞).
///
/// `x [planes, H, W]`, `y` and `indices [planes, Ho, Wo]`; `indices` receives the maximum's flat index in its plane, of
/// `H·W` elements. NaN wins over every number. Of equal values the first is taken, of several NaN the last, as PyTorch
/// does. A window that sees only padding gives −∞ and index −1.
///
/// # Panics
/// If a slice has not the length the geometry gives it, or a kernel size, stride or dilation is 0.
pub fn max_pool2d<T: PoolElement>(geo: &Pool2dGeometry, x: &[T], y: &mut [T], indices: &mut [i64]) {
    geo.check(x.len(), y.len());
    assert_eq!(indices.len(), y.len(), "indices length");
    if y.is_empty() {
        return;
    }
    let ((ho, wo), area) = (geo.out_size(), geo.h * geo.w);
    if area == 0 {
        y.fill(T::neg_infinity());
        return indices.fill(-1);
    }
    let rows = taps(geo.h, ho, geo.kernel.0, geo.stride.0, geo.padding.0, geo.dilation.0);
    let cols = taps(geo.w, wo, geo.kernel.1, geo.stride.1, geo.padding.1, geo.dilation.1);
    let (level, windows) = (level(), Windows { geo, rows: &rows, cols: &cols, whole: whole(geo, &cols) });
    let planes = y.par_chunks_mut(ho * wo).zip(indices.par_chunks_mut(ho * wo)).zip(x.par_chunks(area));
    planes.for_each(|((y, indices), x)| plane(level, &windows, x, y, indices));
}

/// What the windows of every plane have in common.
struct Windows<'a> {
    geo: &'a Pool2dGeometry,
    /// The rows that the windows of each row of outputs see.
    rows: &'a [Range<usize>],
    /// The columns that each output of a row sees.
    cols: &'a [Range<usize>],
    /// The outputs of a row whose windows lie inside the image from side to side.
    whole: Range<usize>,
}

fn whole(geo: &Pool2dGeometry, cols: &[Range<usize>]) -> Range<usize> {
    let span = (geo.kernel.1 - 1) * geo.dilation.1 + 1;
    let inside = |c: &Range<usize>| c.len() == span;
    let first = cols.iter().position(inside).unwrap_or(cols.len());
    first..first + cols[first..].iter().take_while(|c| inside(c)).count()
}

simd_fn! {
    fn plane[S]<T: PoolElement>(w: &Windows, x: &[T], y: &mut [T], indices: &mut [i64]) {
        let (width, whole) = (w.cols.len(), w.whole.clone());
        // Indices are counted in 32 bits beside the values.
        let countable = x.len() <= i32::MAX as usize;
        for (r, (y, indices)) in w.rows.iter().zip(y.chunks_exact_mut(width).zip(indices.chunks_exact_mut(width))) {
            let mut one = |j: usize| (y[j], indices[j]) = window(w.geo, r.clone(), w.cols[j].clone(), x);
            if !countable || whole.len() < 4 {
                (0..width).for_each(one);
                continue;
            }
            (0..whole.start).chain(whole.end..width).for_each(&mut one);
            match whole.len() {
                8.. => line::<T, 8>(w, r, x, y, indices),
                _ => line::<T, 4>(w, r, x, y, indices),
            }
        }
    }
}

/// The whole windows of one row of outputs, of which there are at least `LANES`: so many at a time.
#[inline(always)]
fn line<T: PoolElement, const LANES: usize>(w: &Windows, r: &Range<usize>, x: &[T], y: &mut [T], indices: &mut [i64]) {
    for j in w.whole.clone().step_by(LANES) {
        // The last few overlap with those before.
        let j = j.min(w.whole.end - LANES);
        let (best, index) = match w.geo.stride.1 {
            1 => windows::<T, LANES>(w.geo, r.clone(), w.cols[j].start, 1, x),
            2 => windows::<T, LANES>(w.geo, r.clone(), w.cols[j].start, 2, x),
            step => windows::<T, LANES>(w.geo, r.clone(), w.cols[j].start, step, x),
        };
        y[j..j + LANES].copy_from_slice(&best);
        indices[j..j + LANES].iter_mut().zip(index).for_each(|(to, i)| *to = i as i64);
    }
}

/// One window, of which these rows and columns lie inside the image.
#[inline(always)]
fn window<T: PoolElement>(geo: &Pool2dGeometry, rows: Range<usize>, cols: Range<usize>, x: &[T]) -> (T, i64) {
    let empty = rows.is_empty() || cols.is_empty();
    let mut best = Maximum::new(if empty { -1 } else { (rows.start * geo.w + cols.start) as i64 });
    for u in rows.step_by(geo.dilation.0) {
        for v in cols.clone().step_by(geo.dilation.1) {
            best.see(u * geo.w + v, x[u * geo.w + v]);
        }
    }
    (best.value, best.index)
}

/// `LANES` neighbouring windows, `step` columns apart from `first` on.
#[inline(always)]
fn windows<T: PoolElement, const LANES: usize>(
    geo: &Pool2dGeometry,
    rows: Range<usize>,
    first: usize,
    step: usize,
    x: &[T],
) -> ([T; LANES], [i32; LANES]) {
    let mut best = [T::neg_infinity(); LANES];
    let mut index: [i32; LANES] =
        std::array::from_fn(|l| if rows.is_empty() { -1 } else { (rows.start * geo.w + first + l * step) as i32 });
    for u in rows.step_by(geo.dilation.0) {
        for tap in 0..geo.kernel.1 {
            let at = u * geo.w + first + tap * geo.dilation.1;
            let values = &x[at..][..(LANES - 1) * step + 1];
            for l in 0..LANES {
                let v = values[l * step];
                let better = (v > best[l]) | v.is_nan();
                best[l] = if better { v } else { best[l] };
                index[l] = if better { (at + l * step) as i32 } else { index[l] };
            }
        }
    }
    (best, index)
}

/// For each output, the positions `first, first + dilation, …` below the end that lie inside the axis.
fn taps(size: usize, out: usize, k: usize, s: usize, p: usize, d: usize) -> Vec<Range<usize>> {
    let range = |i: usize| {
        let start = i * s;
        let skipped = p.saturating_sub(start).div_ceil(d); // taps in the padding before the image
        let end = (start + (k - 1) * d + 1).saturating_sub(p).min(size);
        let first = start + skipped * d - p;
        first.min(end)..end
    };
    (0..out).map(range).collect()
}
