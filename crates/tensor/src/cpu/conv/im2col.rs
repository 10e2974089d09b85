//! Patches to columns and back: the linear map `X → X̂` of the module's documentation, and its adjoint.

use super::{ConvElement, Plan, Tile};
use rayon::prelude::*;

/// One piece of an output row as one tap of the kernel sees it.
pub(super) struct Segment {
    /// Offset of the piece in the tile's pixels.
    pub at: usize,
    /// Length of the piece.
    pub len: usize,
    /// Which of its pixels read inside the image (from, to; relative to `at`): the others read padding.
    pub inside: (usize, usize),
    /// Index in the input plane that the first inside pixel reads; the next are `stride.1` further each.
    pub source: usize,
}

impl Plan {
    /// Calls `f` for each piece of the output pixels `start..end` as the tap `(ki, kj)` reads them.
    #[inline]
    pub(super) fn segments(&self, ki: usize, kj: usize, start: usize, end: usize, mut f: impl FnMut(Segment)) {
        let g = &self.geo;
        let (pad_y, pad_x) = g.padding;
        let shift = kj * g.dilation.1;
        // Pixel ox reads column ox·stride + shift − padding: inside for ox in lo..hi.
        let hi = if g.w + pad_x > shift { ((g.w + pad_x - shift - 1) / g.stride.1 + 1).min(self.wo) } else { 0 };
        let lo = pad_x.saturating_sub(shift).div_ceil(g.stride.1).min(hi);
        let mut q = start;
        while q < end {
            let (oy, a) = (q / self.wo, q % self.wo);
            let b = self.wo.min(a + end - q);
            let iy = oy * g.stride.0 + ki * g.dilation.0;
            let (first, last) = (lo.clamp(a, b), hi.clamp(a, b));
            let (at, len) = (q - start, b - a);
            if iy < pad_y || iy - pad_y >= g.h || first >= last {
                f(Segment { at, len, inside: (0, 0), source: 0 });
            } else {
                let source = (iy - pad_y) * g.w + (first * g.stride.1 + shift - pad_x);
                f(Segment { at, len, inside: (first - a, last - a), source });
            }
            q += len;
        }
    }
}

/// Writes the tile of `X̂` for one group, `[k, tile.columns()]`: row `(c, ki, kj)`, column `(image, pixel)`.
pub(super) fn im2col<T: ConvElement>(p: &Plan, x: &[T], group: usize, tile: Tile, cols: &mut [T], parallel: bool) {
    let (g, area, taps, pixels) = (&p.geo, p.area(), p.geo.kh * p.geo.kw, tile.pixels());
    let fill = |r: usize, row: &mut [T]| {
        let (c, ki, kj) = (r / taps, r % taps / g.kw, r % g.kw);
        for (i, out) in row.chunks_exact_mut(pixels).enumerate() {
            let plane = &x[((tile.image + i) * g.c + group * p.cg() + c) * area..][..area];
            p.segments(ki, kj, tile.start, tile.end, |s| {
                let out = &mut out[s.at..s.at + s.len];
                let (lo, hi) = s.inside;
                out[..lo].fill(T::zero());
                out[hi..].fill(T::zero());
                if g.stride.1 == 1 {
                    out[lo..hi].copy_from_slice(&plane[s.source..s.source + hi - lo]);
                } else {
                    out[lo..hi].iter_mut().zip(plane[s.source..].iter().step_by(g.stride.1)).for_each(|(y, x)| *y = *x);
                }
            });
        }
    };
    let columns = tile.columns();
    if parallel && cols.len() >= 1 << 15 {
        cols.par_chunks_mut(columns).enumerate().with_min_len(8).for_each(|(r, row)| fill(r, row));
    } else {
        cols.chunks_mut(columns).enumerate().for_each(|(r, row)| fill(r, row));
    }
}

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
