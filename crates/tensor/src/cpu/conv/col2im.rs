//! Columns back to images: `dX̂ → dX`, the adjoint of the linear map that makes patches.

use super::{ConvElement, Plan, Tile};
use crate::cpu::level::level;
use crate::cpu::parallel::*;
use crate::cpu::simd::simd_fn;

/// Neighbours in a row of `dX̂` that belong to neighbours in the image.
#[derive(Clone, Copy)]
struct Run {
    tap: usize,
    /// The first pixel's place among the tile's.
    at: usize,
    /// Pixels.
    len: usize,
    /// Where the first belongs in the plane; the next are the stride further each.
    to: usize,
}

/// Adds a tile of `dX̂ [C/g·kh·kw, pixel, image]` to the planes `dx [C/g, H·W, image]` of one group.
///
/// The images of a pixel are neighbours on both sides: of small planes there are long runs nevertheless.
pub(super) fn col2im<T: ConvElement>(p: &Plan, cols: &[T], tile: Tile, dx: &mut [T], parallel: bool) {
    let (g, images, mut runs) = (&p.geo, tile.images, Vec::new());
    let taps = g.kh * g.kw;
    for tap in 0..taps {
        p.segments(tap / g.kw, tap % g.kw, tile.start, tile.end, |s| {
            let (lo, hi) = s.inside;
            if hi > lo {
                runs.push(Run { tap, at: s.at + lo, len: hi - lo, to: s.source });
            }
        });
    }
    let (plane, channel) = (p.area() * images, taps * tile.columns());
    let one = |(dx, cols): (&mut [T], &[T])| add(level(), &runs, cols, tile.columns(), images, g.stride.1, dx);
    if parallel && cols.len() >= 1 << 15 {
        dx.par_chunks_mut(plane).zip(cols.par_chunks(channel)).for_each(one);
    } else {
        dx.chunks_mut(plane).zip(cols.chunks(channel)).for_each(one);
    }
}

simd_fn! {
    /// Adds the rows of one channel, `columns` long, to its plane.
    fn add[S]<T: ConvElement>(runs: &[Run], rows: &[T], columns: usize, images: usize, step: usize, plane: &mut [T]) {
        for run in runs {
            let x = &rows[run.tap * columns + run.at * images..][..run.len * images];
            let y = &mut plane[run.to * images..];
            match (step, images) {
                (1, _) => add_each(y, x),
                (_, 1) => y.iter_mut().step_by(step).zip(x).for_each(|(y, &x)| *y = *y + x),
                _ => y.chunks_mut(step * images).zip(x.chunks_exact(images)).for_each(|(y, x)| add_each(y, x)),
            }
        }
    }
}

#[inline(always)]
fn add_each<T: ConvElement>(y: &mut [T], x: &[T]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = *y + x);
}
