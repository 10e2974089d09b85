//! The gradient of the image: where the window moves in single steps it is a convolution of `dY` itself, with the kernel
//! turned round; otherwise `dX̂ = Wᵀ · dY` is scattered back to `dX`.

use super::col2im::col2im;
use super::{Conv2dGeometry, ConvElement, Plan, Tile, depthwise, forward};
use crate::cpu::gemm::{MatRef, gemm};
use crate::cpu::parallel::*;
use crate::cpu::scratch::with_scratch;

/// Gradient of [`conv2d`](super::conv2d) with respect to its input, the adjoint of `x ↦ conv2d(x, w)`:
///
/// `dx[n, c', u, v] = Σ w[o, c, a, b] · dy[n, o, i, j]` over all `o, a, b, i, j` with `u = i·s + a·d − p`, `v` alike.
///
/// `dy [N, O, Ho, Wo]`, `w [O, C/g, kh, kw]`, `dx [N, C, H, W]`; `dx` is overwritten. Pixels that no window reads get 0.
///
/// # Panics
/// As [`conv2d`](super::conv2d).
pub fn conv2d_input_grad<T: ConvElement>(geo: &Conv2dGeometry, dy: &[T], w: &[T], dx: &mut [T]) {
    input_grad(&Plan::new(geo, geo.out_size(), dx.len(), w.len(), dy.len()), dy, w, dx);
}

pub(super) fn input_grad<T: ConvElement>(p: &Plan, dy: &[T], w: &[T], dx: &mut [T]) {
    if dx.is_empty() {
        return;
    }
    if dy.is_empty() || w.is_empty() {
        return dx.fill(T::zero());
    }
    if p.depthwise() {
        return depthwise::input_grad(p, dy, w, dx);
    }
    if let Some(full) = full(p) {
        return forward::forward(&full, dy, &turned(p, w), None, dx);
    }
    let (groups, area, pixels) = (p.geo.groups, p.area(), p.pixels());
    let (cg, og, k, nested) = (p.cg(), p.og(), p.k(), p.nested());
    let weight_t = |group: usize| MatRef::row_major(&w[group * og * k..][..og * k], k).t();
    let block = p.images_per_block();

    if p.pointwise() {
        dx.par_chunks_mut(k * pixels).zip(dy.par_chunks(og * pixels)).enumerate().for_each(|(i, (dx, dy))| {
            gemm(k, pixels, og, weight_t(i % groups), MatRef::row_major(dy, pixels), dx, pixels, false, nested);
        });
    } else if block == 1 {
        dx.par_chunks_mut(cg * area).zip(dy.par_chunks(og * pixels)).enumerate().for_each(|(i, (dx, dy))| {
            dx.fill(T::zero());
            let dy = MatRef::row_major(dy, pixels);
            for tile in p.tiles(i / groups, 1) {
                let n = tile.columns();
                with_scratch(k * n, |cols| {
                    gemm(k, n, og, weight_t(i % groups), dy.at(0, tile.start), cols, n, false, nested);
                    col2im(p, cols, tile, 0, dx, nested);
                });
            }
        });
    } else {
        let image_len = p.geo.c * area;
        dx.par_chunks_mut(block * image_len).enumerate().for_each(|(b, dx)| {
            dx.fill(T::zero());
            let tile = Tile { image: b * block, images: dx.len() / image_len, start: 0, end: pixels };
            let n = tile.columns();
            with_scratch((k + og) * n, |buffer| {
                let (cols, packed) = buffer.split_at_mut(k * n);
                for group in 0..groups {
                    pack_outputs(p, dy, group, tile, packed);
                    gemm(k, n, og, weight_t(group), MatRef::row_major(packed, n), cols, n, false, nested);
                    for (i, dx) in dx.chunks_mut(image_len).enumerate() {
                        col2im(p, cols, tile, i, &mut dx[group * cg * area..][..cg * area], nested);
                    }
                }
            });
        });
    }
}

/// The convolution of `dY` that gives `dX`: padded until the kernel's far corner meets the first pixel (a *full*
/// convolution). `None` where there is none, or where the many more pixels of `dX` make it the longer way.
fn full(p: &Plan) -> Option<Plan> {
    let g = &p.geo;
    let reach = (g.dilation.0 * (g.kh - 1), g.dilation.1 * (g.kw - 1));
    let padding = (reach.0.checked_sub(g.padding.0)?, reach.1.checked_sub(g.padding.1)?);
    let single_steps = g.stride == (1, 1) && (p.ho, p.wo) == g.out_size();
    if !single_steps || p.pointwise() || 2 * p.area() > 3 * p.pixels() {
        return None;
    }
    let geo = Conv2dGeometry { c: g.o, h: p.ho, w: p.wo, o: g.c, padding, ..*g };
    Some(Plan { geo, ho: g.h, wo: g.w })
}

/// `w [O, C/g, kh, kw] → [C, O/g, kh, kw]`, with the taps in reverse.
fn turned<T: ConvElement>(p: &Plan, w: &[T]) -> Vec<T> {
    let (og, cg, taps) = (p.og(), p.cg(), p.geo.kh * p.geo.kw);
    let mut turned = Vec::with_capacity(w.len());
    for c in 0..p.geo.c {
        let (group, c) = (c / cg, c % cg);
        for o in group * og..(group + 1) * og {
            turned.extend(w[(o * cg + c) * taps..][..taps].iter().rev());
        }
    }
    turned
}

/// `[image, O/g, pixel] → [O/g, image · pixel]` for one group of the tile's images.
pub(super) fn pack_outputs<T: ConvElement>(p: &Plan, dy: &[T], group: usize, tile: Tile, packed: &mut [T]) {
    let (pixels, og) = (p.pixels(), p.og());
    for (o, row) in packed.chunks_mut(tile.columns()).enumerate() {
        for (i, out) in row.chunks_mut(pixels).enumerate() {
            out.copy_from_slice(&dy[((tile.image + i) * p.geo.o + group * og + o) * pixels..][..pixels]);
        }
    }
}
