//! The gradient of the image: where the window moves in single steps it is a convolution of `dY` itself, with the kernel
//! turned round; otherwise `dX̂ = Wᵀ · dY` is scattered back to `dX`.

use super::col2im::col2im;
use super::{Conv2dGeometry, ConvElement, Plan, Tile, depthwise, forward};
use crate::cpu::gemm::{MatRef, gemm, transpose};
use crate::cpu::parallel::*;
use crate::cpu::scratch::with_scratch;
use crate::storage::CpuBuffer;

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
        return forward::forward(&full, dy, turned(p, w).as_slice(), None, dx);
    }
    let (groups, area, pixels) = (p.geo.groups, p.area(), p.pixels());
    let (cg, og, k, nested) = (p.cg(), p.og(), p.k(), p.nested());
    let weight_t = |group: usize| MatRef::row_major(&w[group * og * k..][..og * k], k).t();

    if p.pointwise() {
        dx.par_chunks_mut(k * pixels).zip(dy.par_chunks(og * pixels)).enumerate().for_each(|(i, (dx, dy))| {
            gemm(k, pixels, og, weight_t(i % groups), MatRef::row_major(dy, pixels), dx, pixels, false, nested);
        });
    } else if p.images_per_block() == 1 {
        dx.par_chunks_mut(cg * area).zip(dy.par_chunks(og * pixels)).enumerate().for_each(|(i, (dx, dy))| {
            dx.fill(T::zero());
            add_tiles(p, weight_t(i % groups), dy, 1, dx);
        });
    } else {
        let (from, to) = (p.geo.o * pixels, p.geo.c * area);
        dx.par_chunks_mut(IMAGES * to).zip(dy.par_chunks(IMAGES * from)).for_each(|(dx, dy)| {
            let images = dx.len() / to;
            with_scratch((from + to) * images, |buffer| {
                // [image, channel, pixel] → [channel, pixel, image], and back.
                let (outputs, inputs) = buffer.split_at_mut(from * images);
                transpose(dy, images, outputs);
                inputs.fill(T::zero());
                let work = inputs.chunks_mut(cg * area * images).zip(outputs.chunks(og * pixels * images));
                work.enumerate().for_each(|(group, (dx, dy))| add_tiles(p, weight_t(group), dy, images, dx));
                transpose(inputs, to, dx);
            });
        });
    }
}

/// Images of small planes whose gradients are computed together, as neighbours.
const IMAGES: usize = 8;

/// Adds `Wᵀ · dY` of one group to `dx [C/g, H·W, image]`, a tile at a time; `dy [O/g, Ho·Wo, image]`.
fn add_tiles<T: ConvElement>(p: &Plan, weight_t: MatRef<T>, dy: &[T], images: usize, dx: &mut [T]) {
    let (pixels, og, k, nested) = (p.pixels(), p.og(), p.k(), p.nested());
    let tiles = pixels.div_ceil((p.tile_pixels() / images).max(1));
    let step = pixels.div_ceil(tiles);
    let dy = MatRef::row_major(dy, pixels * images);
    for start in (0..pixels).step_by(step) {
        let tile = Tile { image: 0, images, start, end: pixels.min(start + step) };
        let n = tile.columns();
        with_scratch(k * n, |cols| {
            gemm(k, n, og, weight_t, dy.at(0, start * images), cols, n, false, nested);
            col2im(p, cols, tile, dx, nested);
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
    // Adding columns to images costs less where these are neighbours.
    let worth_it =
        if p.images_per_block() > 1 { 4 * p.area() <= 5 * p.pixels() } else { 2 * p.area() <= 3 * p.pixels() };
    if !single_steps || p.pointwise() || !worth_it {
        return None;
    }
    let geo = Conv2dGeometry { c: g.o, h: p.ho, w: p.wo, o: g.c, padding, ..*g };
    Some(Plan { geo, ho: g.h, wo: g.w })
}

/// `w [O, C/g, kh, kw] → [C, O/g, kh, kw]`, with the taps in reverse.
fn turned<T: ConvElement>(p: &Plan, w: &[T]) -> CpuBuffer {
    let (og, cg, taps) = (p.og(), p.cg(), p.geo.kh * p.geo.kw);
    let mut turned = CpuBuffer::scratch::<T>(w.len());
    turned.as_mut_slice::<T>().par_chunks_mut(og * taps).enumerate().for_each(|(c, to)| {
        let (group, c) = (c / cg, c % cg);
        for (o, to) in to.chunks_exact_mut(taps).enumerate() {
            let from = &w[((group * og + o) * cg + c) * taps..][..taps];
            to.iter_mut().zip(from.iter().rev()).for_each(|(to, &w)| *to = w);
        }
    });
    turned
}
