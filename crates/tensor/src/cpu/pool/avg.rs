//! The average over windows.

use super::{Pool2dGeometry, PoolElement};
use crate::cpu::parallel::*;

/// The part of a window on one axis: what lies inside the image, and its length with the padding.
struct Span {
    start: usize,
    end: usize,
    padded: usize,
}

fn spans(size: usize, out: usize, k: usize, s: usize, p: usize) -> Vec<Span> {
    let span = |i: usize| {
        // In coordinates that begin with the padding: the window is cut off where the padding after the image ends.
        let (start, stop) = (i * s, (i * s + k).min(size + 2 * p));
        let end = stop.saturating_sub(p).min(size);
        Span { start: start.saturating_sub(p).min(end), end, padded: stop - start }
    };
    (0..out).map(span).collect()
}

/// Calls `f(output, rows and columns of the window, count)` for the outputs of one plane, in order.
fn windows<T: PoolElement>(rows: &[Span], cols: &[Span], pad: bool, mut f: impl FnMut(usize, &Span, &Span, T)) {
    let mut out = 0;
    for r in rows {
        for c in cols {
            let count = if pad { r.padded * c.padded } else { (r.end - r.start) * (c.end - c.start) };
            f(out, r, c, T::from(count.max(1)).unwrap());
            out += 1;
        }
    }
}

/// `y[i, j] = (Σ_{a, b} x[i·s + a − p, j·s + b − p]) / count` in each plane `[H, W]` of `x`.
///
/// `count` is the window's size, or with `count_include_pad = false` the number of its elements inside the image. (In
/// `ceil_mode`, what a window has beyond the padding counts in neither.) A window that sees nothing gives 0.
///
/// # Panics
/// If a slice has not the length the geometry gives it, a kernel size or stride is 0, or the dilation is not 1.
pub fn avg_pool2d<T: PoolElement>(geo: &Pool2dGeometry, count_include_pad: bool, x: &[T], y: &mut [T]) {
    let (rows, cols) = plan(geo, x.len(), y.len());
    if y.is_empty() {
        return;
    }
    if x.is_empty() {
        return y.fill(T::zero());
    }
    let out = rows.len() * cols.len();
    y.par_chunks_mut(out).zip(x.par_chunks(geo.h * geo.w)).for_each(|(y, x)| {
        windows(&rows, &cols, count_include_pad, |o, r, c, count: T| {
            let row_sum = |u: usize| x[u * geo.w + c.start..u * geo.w + c.end].iter().fold(T::zero(), |s, &v| s + v);
            y[o] = (r.start..r.end).fold(T::zero(), |s, u| s + row_sum(u)) / count;
        });
    });
}

/// Backward of [`avg_pool2d`]: each output's gradient, divided by its count, is **added** to the window's elements of
/// `dx [planes, H, W]`.
///
/// # Panics
/// As [`avg_pool2d`].
pub fn avg_pool2d_backward<T: PoolElement>(geo: &Pool2dGeometry, count_include_pad: bool, dy: &[T], dx: &mut [T]) {
    let (rows, cols) = plan(geo, dx.len(), dy.len());
    if dx.is_empty() || dy.is_empty() {
        return;
    }
    let out = rows.len() * cols.len();
    dx.par_chunks_mut(geo.h * geo.w).zip(dy.par_chunks(out)).for_each(|(dx, dy)| {
        windows(&rows, &cols, count_include_pad, |o, r, c, count: T| {
            let share = dy[o] / count;
            for u in r.start..r.end {
                dx[u * geo.w + c.start..u * geo.w + c.end].iter_mut().for_each(|d| *d = *d + share);
            }
        });
    });
}

fn plan(geo: &Pool2dGeometry, x: usize, y: usize) -> (Vec<Span>, Vec<Span>) {
    geo.check(x, y);
    assert_eq!(geo.dilation, (1, 1), "the average has no dilation");
    let (ho, wo) = geo.out_size();
    (
        spans(geo.h, ho, geo.kernel.0, geo.stride.0, geo.padding.0),
        spans(geo.w, wo, geo.kernel.1, geo.stride.1, geo.padding.1),
    )
}
