//! `Y = W · X̂`.

use super::im2col::im2col;
use super::scratch::with_scratch;
use super::{Conv2dGeometry, ConvElement, Plan, Tile, depthwise};
use crate::cpu::gemm::{MatRef, gemm};
use rayon::prelude::*;

/// 2-D convolution (cross-correlation, as every framework calls it):
///
/// `y[n, o, i, j] = Σ_{c, a, b} w[o, c, a, b] · x[n, c', i·s + a·d − p, j·s + b·d − p]`
///
/// with `c' = c + group(o) · C/g` and zeros outside the image. `x [N, C, H, W]`, `w [O, C/g, kh, kw]`,
/// `y [N, O, Ho, Wo]` with `(Ho, Wo) = geo.out_size()`; `y` is overwritten. No bias.
///
/// # Panics
/// If a slice has not the length the geometry gives it, a stride or dilation is 0, or `groups` does not divide `C` and `O`.
pub fn conv2d<T: ConvElement>(geo: &Conv2dGeometry, x: &[T], w: &[T], y: &mut [T]) {
    forward(&Plan::new(geo, geo.out_size(), x.len(), w.len(), y.len()), x, w, y);
}

pub(super) fn forward<T: ConvElement>(p: &Plan, x: &[T], w: &[T], y: &mut [T]) {
    if y.is_empty() {
        return;
    }
    if x.is_empty() || w.is_empty() {
        return y.fill(T::zero());
    }
    if p.depthwise() {
        return depthwise::forward(p, x, w, y);
    }
    let (groups, pixels, og, k, nested) = (p.geo.groups, p.pixels(), p.og(), p.k(), p.nested());
    let weight = |group: usize| MatRef::row_major(&w[group * og * k..][..og * k], k);
    let block = p.images_per_block();

    if p.pointwise() {
        y.par_chunks_mut(og * pixels).zip(x.par_chunks(k * pixels)).enumerate().for_each(|(i, (y, x))| {
            gemm(og, pixels, k, weight(i % groups), MatRef::row_major(x, pixels), y, pixels, false, nested);
        });
    } else if block == 1 {
        y.par_chunks_mut(og * pixels).enumerate().for_each(|(i, y)| {
            let (image, group) = (i / groups, i % groups);
            for tile in p.tiles(image, 1) {
                let n = tile.columns();
                with_scratch(k * n, |cols| {
                    im2col(p, x, group, tile, cols, nested);
                    let cols = MatRef::row_major(cols, n);
                    gemm(og, n, k, weight(group), cols, &mut y[tile.start..], pixels, false, nested);
                });
            }
        });
    } else {
        let image_len = p.geo.o * pixels;
        y.par_chunks_mut(block * image_len).enumerate().for_each(|(b, y)| {
            let tile = Tile { image: b * block, images: y.len() / image_len, start: 0, end: pixels };
            let n = tile.columns();
            with_scratch((k + og) * n, |buffer| {
                let (cols, out) = buffer.split_at_mut(k * n);
                for group in 0..groups {
                    im2col(p, x, group, tile, cols, nested);
                    gemm(og, n, k, weight(group), MatRef::row_major(cols, n), out, n, false, nested);
                    // [O/g, image, pixel] → [image, O/g, pixel]
                    for (i, y) in y.chunks_mut(image_len).enumerate() {
                        for (o, row) in y[group * og * pixels..][..og * pixels].chunks_mut(pixels).enumerate() {
                            row.copy_from_slice(&out[o * n + i * pixels..][..pixels]);
                        }
                    }
                }
            });
        });
    }
}
