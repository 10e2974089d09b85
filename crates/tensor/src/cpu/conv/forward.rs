//! `Y = W · X̂`.

use super::patches::Patches;
use super::{Conv2dGeometry, ConvElement, Plan, Tile, depthwise};
use crate::cpu::gemm::{MatRef, gemm};
use crate::cpu::parallel::*;
use crate::cpu::scratch::with_scratch;

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
    forward(&Plan::new(geo, geo.out_size(), x.len(), w.len(), y.len()), x, w, None, y);
}

/// The convolution, plus a bias `[O]`.
pub(super) fn forward<T: ConvElement>(p: &Plan, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    assert!(bias.is_none_or(|b| b.len() == p.geo.o), "bias length");
    if y.is_empty() {
        return;
    }
    let (groups, pixels, og, k, nested) = (p.geo.groups, p.pixels(), p.og(), p.k(), p.nested());
    // What the products add to.
    let start = |group: usize, rows: &mut [T], stride: usize| {
        if let Some(bias) = bias {
            rows.chunks_mut(stride).zip(&bias[group * og..]).for_each(|(row, &b)| row.fill(b));
        }
    };
    let sums = bias.is_some();
    if x.is_empty() || w.is_empty() {
        y.fill(T::zero());
        return y.chunks_mut(og * pixels).enumerate().for_each(|(i, y)| start(i % groups, y, pixels));
    }
    if p.depthwise() {
        return depthwise::forward(p, x, w, bias, y);
    }
    let weight = |group: usize| MatRef::row_major(&w[group * og * k..][..og * k], k);
    let block = p.images_per_block();

    if p.pointwise() {
        y.par_chunks_mut(og * pixels).zip(x.par_chunks(k * pixels)).enumerate().for_each(|(i, (y, x))| {
            start(i % groups, y, pixels);
            gemm(og, pixels, k, weight(i % groups), MatRef::row_major(x, pixels), y, pixels, sums, nested);
        });
    } else if block == 1 {
        y.par_chunks_mut(og * pixels).enumerate().for_each(|(i, y)| {
            let (image, group) = (i / groups, i % groups);
            start(group, y, pixels);
            for tile in p.tiles(image, 1) {
                let patches = Patches::new(p, x, group, tile).pack(nested);
                patches.product(og, weight(group), &mut y[tile.start..], pixels, sums, nested);
            }
        });
    } else {
        let image_len = p.geo.o * pixels;
        y.par_chunks_mut(block * image_len).enumerate().for_each(|(b, y)| {
            let tile = Tile { image: b * block, images: y.len() / image_len, start: 0, end: pixels };
            let n = tile.columns();
            with_scratch(og * n, |out| {
                for group in 0..groups {
                    start(group, out, n);
                    Patches::new(p, x, group, tile).pack(nested).product(og, weight(group), out, n, sums, nested);
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
