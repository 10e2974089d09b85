//! Pooling to a given output size: output `i` of `O` covers the inputs `⌊i·H/O⌋ … ⌈(i+1)·H/O⌉ − 1`; neighbouring bins
//! overlap where `O` does not divide `H`.

use super::{Maximum, PoolElement};
use crate::cpu::parallel::*;
use std::ops::Range;

/// The sizes of an adaptive pooling of `x [planes, h, w]` to `y [planes, ho, wo]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptivePool2dGeometry {
    /// Number of planes, `N·C`.
    pub planes: usize,
    /// Height of an input plane.
    pub h: usize,
    /// Width of an input plane.
    pub w: usize,
    /// Height of an output plane.
    pub ho: usize,
    /// Width of an output plane.
    pub wo: usize,
}

impl AdaptivePool2dGeometry {
    /// The bins `(rows, columns)`; panics on wrong lengths or where there is an output but no input.
    fn bins(&self, x: usize, y: usize) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
        assert_eq!(x, self.planes * self.h * self.w, "input length");
        assert_eq!(y, self.planes * self.ho * self.wo, "output length");
        assert!(y == 0 || x > 0, "adaptive pooling of an empty plane");
        let axis = |n: usize, out: usize| (0..out).map(|i| i * n / out..((i + 1) * n).div_ceil(out)).collect();
        (axis(self.h, self.ho), axis(self.w, self.wo))
    }

    fn area(&self) -> usize {
        self.h * self.w
    }
    fn out(&self) -> usize {
        self.ho * self.wo
    }
}

/// `y[i, j]` = the mean of bin `(i, j)` of each plane.
///
/// # Panics
/// If a slice has not the length the geometry gives it, or planes with outputs are empty.
pub fn adaptive_avg_pool2d<T: PoolElement>(geo: &AdaptivePool2dGeometry, x: &[T], y: &mut [T]) {
    let (rows, cols) = geo.bins(x.len(), y.len());
    if y.is_empty() {
        return;
    }
    y.par_chunks_mut(geo.out()).zip(x.par_chunks(geo.area())).for_each(|(y, x)| {
        let bins = rows.iter().flat_map(|r| cols.iter().map(move |c| (r, c)));
        for (y, (r, c)) in y.iter_mut().zip(bins) {
            let row_sum = |u: usize| x[u * geo.w..][c.clone()].iter().fold(T::zero(), |s, &v| s + v);
            *y = r.clone().fold(T::zero(), |s, u| s + row_sum(u)) / T::from(r.len() * c.len()).unwrap();
        }
    });
}

/// Backward of [`adaptive_avg_pool2d`]: **adds** `dy / bin size` to the bin's elements of `dx [planes, H, W]`.
///
/// # Panics
/// As [`adaptive_avg_pool2d`].
pub fn adaptive_avg_pool2d_backward<T: PoolElement>(geo: &AdaptivePool2dGeometry, dy: &[T], dx: &mut [T]) {
    let (rows, cols) = geo.bins(dx.len(), dy.len());
    if dx.is_empty() || dy.is_empty() {
        return;
    }
    dx.par_chunks_mut(geo.area()).zip(dy.par_chunks(geo.out())).for_each(|(dx, dy)| {
        let bins = rows.iter().flat_map(|r| cols.iter().map(move |c| (r, c)));
        for (&dy, (r, c)) in dy.iter().zip(bins) {
            let share = dy / T::from(r.len() * c.len()).unwrap();
            for u in r.clone() {
                dx[u * geo.w..][c.clone()].iter_mut().for_each(|d| *d = *d + share);
            }
        }
    });
}

/// `y[i, j]` = the maximum of bin `(i, j)` of each plane, and in `indices` its flat index in the plane. NaN wins; ties as in
/// [`max_pool2d`](super::max_pool2d).
///
/// # Panics
/// As [`adaptive_avg_pool2d`].
pub fn adaptive_max_pool2d<T: PoolElement>(geo: &AdaptivePool2dGeometry, x: &[T], y: &mut [T], indices: &mut [i64]) {
    let (rows, cols) = geo.bins(x.len(), y.len());
    assert_eq!(indices.len(), y.len(), "indices length");
    if y.is_empty() {
        return;
    }
    let planes = y.par_chunks_mut(geo.out()).zip(indices.par_chunks_mut(geo.out())).zip(x.par_chunks(geo.area()));
    planes.for_each(|((y, indices), x)| {
        let bins = rows.iter().flat_map(|r| cols.iter().map(move |c| (r, c)));
        for ((y, index), (r, c)) in y.iter_mut().zip(indices).zip(bins) {
            let mut best = Maximum::new((r.start * geo.w + c.start) as i64);
            for (u, v) in r.clone().flat_map(|u| c.clone().map(move |v| (u, v))) {
                best.see(u * geo.w + v, x[u * geo.w + v]);
            }
            (*y, *index) = (best.value, best.index);
        }
    });
}
