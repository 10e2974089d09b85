//! Resizing: linear, so its derivative is its adjoint.

use super::plane_map::Mapped;
use super::pool::as_image;
use crate::{Function, Var};
use ferrograd_tensor::Interpolation;
use ferrograd_tensor::ops::interpolate::interpolate_map;

impl Var {
    /// Resizes `[N, C, H, W]` to `size [h, w]`, or (nearest only) `[N, C, L]` to `[l]`, see
    /// [`Tensor::interpolate`](ferrograd_tensor::Tensor::interpolate).
    #[track_caller]
    pub fn interpolate(&self, size: &[usize], mode: Interpolation) -> Var {
        const OP: &str = "interpolate";
        let map = interpolate_map(self.tensor(), size, mode);
        let resized = Mapped::forward(OP, map);
        match self.rank() {
            3 => as_image(OP, self, |x| resized.apply1(&[x])),
            _ => resized.apply1(&[self]),
        }
    }
}
