//! The maximum over windows.

use super::{Maximum, Pool2dGeometry, PoolElement};
use rayon::prelude::*;
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
    let planes = y.par_chunks_mut(ho * wo).zip(indices.par_chunks_mut(ho * wo)).zip(x.par_chunks(area));
    planes.for_each(|((y, indices), x)| {
        let outputs = y.iter_mut().zip(indices);
        let windows = rows.iter().flat_map(|r| cols.iter().map(move |c| (r, c)));
        for ((y, index), (r, c)) in outputs.zip(windows) {
            let empty = r.is_empty() || c.is_empty();
            let mut best = Maximum::new(if empty { -1 } else { (r.start * geo.w + c.start) as i64 });
            for u in r.clone().step_by(geo.dilation.0) {
                let row = &x[u * geo.w..][..geo.w];
                for v in c.clone().step_by(geo.dilation.1) {
                    best.see(u * geo.w + v, row[v]);
                }
            }
            (*y, *index) = (best.value, best.index);
        }
    });
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
