//! Pooling over windows of an image's planes.
//!
//! A plane is one channel of one image: `[N, C, H, W]` is `N·C` planes of `[H, W]`. One-dimensional pooling is the
//! two-dimensional with `H = 1` and a kernel of height 1. Planes are independent and share the thread pool.
//!
//! The forward functions overwrite their outputs, and so does `scatter_to_planes`, the maximum's derivative. The other
//! backward functions **add** to `dx`, so that gradients of several uses can meet in one buffer: the caller zeroes it first.

mod adaptive;
mod avg;
mod max;

#[cfg(test)]
mod tests;

pub use adaptive::{AdaptivePool2dGeometry, adaptive_avg_pool2d, adaptive_avg_pool2d_backward, adaptive_max_pool2d};
pub use avg::{avg_pool2d, avg_pool2d_backward};
pub use max::max_pool2d;

use crate::cpu::parallel::*;
use num_traits::Float;

/// What pooling and interpolation compute in: `f32` and `f64`.
pub trait PoolElement: Float + Send + Sync {}
impl PoolElement for f32 {}
impl PoolElement for f64 {}

/// The sizes of a pooling over windows; pairs are `(vertical, horizontal)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2dGeometry {
    /// Number of planes, `N·C`.
    pub planes: usize,
    /// Height of a plane.
    pub h: usize,
    /// Width of a plane.
    pub w: usize,
    /// Size of the window, at least 1.
    pub kernel: (usize, usize),
    /// Steps of the window, at least 1.
    pub stride: (usize, usize),
    /// Padding on *both* sides of each axis, less than the kernel: −∞ for the maximum, 0 for the average.
    pub padding: (usize, usize),
    /// Distance between the window's taps, at least 1. The average has none: leave it 1.
    pub dilation: (usize, usize),
    /// Round the output size up: also windows that run over the end count, if they begin inside the image or its left
    /// padding.
    pub ceil_mode: bool,
}

impl Pool2dGeometry {
    /// `(Ho, Wo)`, with `Ho = ⌊(H + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1` (`⌈…⌉` in `ceil_mode`, less the
    /// windows that would begin in the padding after the image); 0 where not one window fits.
    pub fn out_size(&self) -> (usize, usize) {
        let axis = |size: usize, k: usize, s: usize, p: usize, d: usize| {
            let up = if self.ceil_mode { s - 1 } else { 0 };
            let Some(room) = (size + 2 * p + up).checked_sub(d * (k - 1) + 1) else { return 0 };
            let out = room / s + 1;
            if self.ceil_mode && (out - 1) * s >= size + p { out - 1 } else { out }
        };
        (
            axis(self.h, self.kernel.0, self.stride.0, self.padding.0, self.dilation.0),
            axis(self.w, self.kernel.1, self.stride.1, self.padding.1, self.dilation.1),
        )
    }

    /// Number of elements of the input.
    pub fn input_len(&self) -> usize {
        self.planes * self.h * self.w
    }

    /// Number of elements of the output.
    pub fn output_len(&self) -> usize {
        let (ho, wo) = self.out_size();
        self.planes * ho * wo
    }

    fn check(&self, x: usize, y: usize) {
        let pairs = [self.kernel, self.stride, self.dilation];
        assert!(pairs.iter().all(|p| p.0 > 0 && p.1 > 0), "kernel, stride and dilation are at least 1");
        assert_eq!(x, self.input_len(), "input length");
        assert_eq!(y, self.output_len(), "output length");
    }
}

/// `dx[plane, index] = Σ dy` over the outputs of each plane with that index; negative indices are skipped. `dx` is
/// overwritten.
pub(crate) fn scatter_to_planes<T: PoolElement>(indices: &[i64], dy: &[T], out: usize, dx: &mut [T], area: usize) {
    if dx.is_empty() {
        return;
    }
    if dy.is_empty() {
        return dx.fill(T::zero());
    }
    dx.par_chunks_mut(area).zip(dy.par_chunks(out)).zip(indices.par_chunks(out)).for_each(|((dx, dy), indices)| {
        dx.fill(T::zero());
        for (&i, &dy) in indices.iter().zip(dy) {
            if i >= 0 {
                dx[i as usize] = dx[i as usize] + dy;
            }
        }
    });
}

/// A running maximum and where it is: the first of equals, but the last NaN if there is one.
struct Maximum<T> {
    index: i64,
    value: T,
}

impl<T: PoolElement> Maximum<T> {
    /// Nothing seen but −∞, at `index`.
    fn new(index: i64) -> Self {
        Maximum { index, value: T::neg_infinity() }
    }
    #[inline]
    fn see(&mut self, index: usize, value: T) {
        if value > self.value || value.is_nan() {
            *self = Maximum { index: index as i64, value };
        }
    }
}
