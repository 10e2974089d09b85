//! Resizing: checks and dispatch.

use super::pool::{apply_map, as_image};
use crate::backend::PlaneMap;
use crate::{Tensor, ensure};

pub use crate::cpu::interpolate::{InterpolateGeometry, Interpolation};

/// What the checks of [`Tensor::interpolate`] make of the arguments, for `x [N, C, H, W]`; `shown` is what the caller gave.
#[track_caller]
fn plan(shown: &Tensor, x: &Tensor, size: &[usize], mode: Interpolation) -> PlaneMap {
    const OP: &str = "interpolate";
    ensure!(x.dtype().is_float(), DType, OP, "needs floats, got {}", x.dtype());
    let &[n, c, h, w] = x.dims() else { unreachable!("checked by interpolate_map") };
    ensure!(
        h > 0 && w > 0 && size.iter().all(|&n| n > 0),
        Shape,
        OP,
        "from {} to {size:?}: no extent of a plane may be 0",
        shown.shape()
    );
    let (ho, wo) = if let [wo] = *size { (1, wo) } else { (size[0], size[1]) };
    PlaneMap::Interpolate { sizes: InterpolateGeometry { planes: n * c, h, w, ho, wo }, mode }
}

/// The checks of [`Tensor::interpolate`]: the linear map of the planes of `x`, which counts as an image of height 1 if it
/// is `[N, C, L]`.
#[track_caller]
pub fn interpolate_map(x: &Tensor, size: &[usize], mode: Interpolation) -> PlaneMap {
    const OP: &str = "interpolate";
    ensure!(
        matches!((x.rank(), mode), (3, Interpolation::Nearest) | (4, _)),
        Shape,
        OP,
        "{mode:?} needs [N, C, H, W]{}, got {}",
        if mode == Interpolation::Nearest { " or [N, C, L]" } else { "" },
        x.shape()
    );
    ensure!(
        size.len() == x.rank() - 2,
        Shape,
        OP,
        "size {size:?} for input {}: one extent for each of the last {} dimensions",
        x.shape(),
        x.rank() - 2
    );
    match x.rank() {
        3 => as_image(OP, x, |image| plan(x, image, size, mode)),
        _ => plan(x, x, size, mode),
    }
}

impl Tensor {
    /// Resizes `[N, C, H, W]` to `[N, C, size[0], size[1]]`, or (nearest only) `[N, C, L]` to `[N, C, size[0]]`. Floats.
    ///
    /// - [`Interpolation::Nearest`]: output `i` of `O` takes input `⌊i·H/O⌋`, in exact integer arithmetic. PyTorch's
    ///   `nearest` computes `⌊i · (H/O)⌋` in f32 and so takes, at a few sizes, the pixel before the exact one.
    /// - [`Interpolation::Bilinear`]: output `i` lies at `src` between two inputs and mixes them, on both axes; `src =
    ///   i·(H − 1)/(O − 1)` with `align_corners`, else `max(0, (i + ½)·H/O − ½)`.
    ///
    /// # Panics
    /// On another rank, a size of another length, or an extent of 0.
    #[track_caller]
    pub fn interpolate(&self, size: &[usize], mode: Interpolation) -> Tensor {
        let map = interpolate_map(self, size, mode);
        match self.rank() {
            3 => apply_map(&map, &self.unsqueeze(2)).squeeze(2),
            _ => apply_map(&map, self),
        }
    }
}
