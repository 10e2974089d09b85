//! Columns back to images: `dX̂ → dX`, the adjoint of the linear map that makes patches.

use super::{ConvElement, Plan, Tile};
use crate::cpu::parallel::*;

/// Adds column block `image` of a tile of `dX̂` to that image's planes `dx [C/g, H, W]` of one group.
pub(super) fn col2im<T: ConvElement>(p: &Plan, cols: &[T], tile: Tile, image: usize, dx: &mut [T], parallel: bool) {
    let (g, taps, columns, pixels) = (&p.geo, p.geo.kh * p.geo.kw, tile.columns(), tile.pixels());
    let add = |c: usize, plane: &mut [T]| {
        for tap in 0..taps {
            let row = &cols[(c * taps + tap) * columns + image * pixels..][..pixels];
            p.segments(tap / g.kw, tap % g.kw, tile.start, tile.end, |s| {
                let (lo, hi) = s.inside;
                add_strided(&mut plane[s.source..], g.stride.1, &row[s.at + lo..s.at + hi], T::one());
            });
        }
    };
    if parallel && cols.len() >= 1 << 15 {
        dx.par_chunks_mut(p.area()).enumerate().for_each(|(c, plane)| add(c, plane));
    } else {
        dx.chunks_mut(p.area()).enumerate().for_each(|(c, plane)| add(c, plane));
    }
}

/// `y[i · stride] += a · x[i]`.
#[inline]
pub(super) fn add_strided<T: ConvElement>(y: &mut [T], stride: usize, x: &[T], a: T) {
    if stride == 1 {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = *y + a * x);
    } else {
        y.iter_mut().step_by(stride).zip(x).for_each(|(y, &x)| *y = *y + a * x);
    }
}
