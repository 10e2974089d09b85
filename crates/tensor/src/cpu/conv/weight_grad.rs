//! `dW = Σ dY · X̂ᵀ` over images and tiles.

use super::patches::Patches;
use super::{Conv2dGeometry, ConvElement, Plan, Tile, depthwise};
use crate::cpu::gemm::{MatRef, gemm};
use crate::cpu::parallel::*;
use crate::cpu::scratch::with_scratch;
use crate::storage::CpuBuffer;

/// Partial sums held at once: no more than this many, and no more than `PARTIAL_LEN` elements in all.
const PARTS: usize = 16;
const PARTIAL_LEN: usize = 1 << 22;

/// Gradient of [`conv2d`](super::conv2d) with respect to its weight:
///
/// `dw[o, c, a, b] = Σ_{n, i, j} dy[n, o, i, j] · x[n, c', i·s + a·d − p, j·s + b·d − p]`
///
/// `x [N, C, H, W]`, `dy [N, O, Ho, Wo]`, `dw [O, C/g, kh, kw]`; `dw` is overwritten. The sum runs over a fixed partition
/// of the batch whose partial sums are added in order, so the bits do not depend on the number of threads.
///
/// # Panics
/// As [`conv2d`](super::conv2d).
pub fn conv2d_weight_grad<T: ConvElement>(geo: &Conv2dGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    weight_grad(&Plan::new(geo, geo.out_size(), x.len(), dw.len(), dy.len()), x, dy, dw);
}

pub(super) fn weight_grad<T: ConvElement>(p: &Plan, x: &[T], dy: &[T], dw: &mut [T]) {
    if dw.is_empty() {
        return;
    }
    if x.is_empty() || dy.is_empty() {
        return dw.fill(T::zero());
    }
    if p.depthwise() {
        return depthwise::weight_grad(p, x, dy, dw);
    }
    let (n, block) = (p.geo.n, p.images_per_block());
    let tiles: Vec<Tile> = (0..n).step_by(block).flat_map(|i| p.tiles(i, block.min(n - i))).collect();

    let parts = (PARTIAL_LEN / dw.len()).clamp(1, PARTS).min(tiles.len());
    let (first, rest) = tiles.split_at(tiles.len() / parts);
    let per_part = rest.len().div_ceil((parts - 1).max(1)).max(1);
    let len = dw.len();
    let mut partials = CpuBuffer::scratch::<T>(rest.len().div_ceil(per_part) * len);
    let partials = partials.as_mut_slice::<T>();
    rayon::join(
        || sum_tiles(p, x, dy, first, dw),
        || {
            let work = partials.par_chunks_mut(len).zip(rest.par_chunks(per_part));
            work.for_each(|(partial, tiles)| sum_tiles(p, x, dy, tiles, partial));
        },
    );
    dw.par_chunks_mut(1 << 12).enumerate().for_each(|(i, dw)| {
        for partial in partials.chunks(len) {
            dw.iter_mut().zip(&partial[i << 12..]).for_each(|(d, &s)| *d = *d + s);
        }
    });
}

/// `dw = Σ dY · X̂ᵀ` over these tiles, of which there are some, in order.
fn sum_tiles<T: ConvElement>(p: &Plan, x: &[T], dy: &[T], tiles: &[Tile], dw: &mut [T]) {
    let (g, pixels, og, k, nested) = (&p.geo, p.pixels(), p.og(), p.k(), p.nested());
    for (i, &tile) in tiles.iter().enumerate() {
        let (n, accumulate) = (tile.columns(), i > 0);
        for (group, dw) in dw.chunks_mut(og * k).enumerate() {
            let outputs = |image: usize| {
                MatRef::row_major(&dy[(image * g.o + group * og) * pixels..][..og * pixels], pixels).at(0, tile.start)
            };
            if p.pointwise() {
                let input = &x[(tile.image * g.c + group * k) * pixels..][..k * pixels];
                let cols = MatRef::row_major(input, pixels).at(0, tile.start);
                gemm(og, k, n, outputs(tile.image), cols.t(), dw, k, accumulate, nested);
                continue;
            }
            let patches = Patches::new(p, x, group, tile).pack_transposed(nested);
            let packed_len = if tile.images > 1 { og * n } else { 0 };
            with_scratch(packed_len, |packed| {
                let outputs = if tile.images > 1 {
                    pack_outputs(p, dy, group, tile, packed);
                    MatRef::row_major(packed, n)
                } else {
                    outputs(tile.image)
                };
                patches.product(og, outputs, dw, k, accumulate, nested);
            });
        }
    }
}

/// `[image, O/g, pixel] → [O/g, image · pixel]` for one group of the tile's images.
fn pack_outputs<T: ConvElement>(p: &Plan, dy: &[T], group: usize, tile: Tile, packed: &mut [T]) {
    let (pixels, og) = (p.pixels(), p.og());
    for (o, row) in packed.chunks_mut(tile.columns()).enumerate() {
        for (i, out) in row.chunks_mut(pixels).enumerate() {
            out.copy_from_slice(&dy[((tile.image + i) * p.geo.o + group * og + o) * pixels..][..pixels]);
        }
    }
}
