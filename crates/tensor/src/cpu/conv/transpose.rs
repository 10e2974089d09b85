//! The transposed convolution is the input gradient of a convolution that goes the other way.

use super::forward::forward;
use super::input_grad::input_grad;
use super::weight_grad::weight_grad;
use super::{Conv2dGeometry, ConvElement, Plan};

/// The sizes of a transposed convolution of `x [n, c, h, w]` with `w [c, o/groups, kh, kw]` to `y [n, o, Ho, Wo]`; pairs
/// are `(vertical, horizontal)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTranspose2dGeometry {
    /// Images in the batch.
    pub n: usize,
    /// Input channels, a multiple of `groups`.
    pub c: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Output channels, a multiple of `groups`.
    pub o: usize,
    /// Kernel height.
    pub kh: usize,
    /// Kernel width.
    pub kw: usize,
    /// Distance in the output between neighbours of the input, at least 1.
    pub stride: (usize, usize),
    /// Rows and columns cut off on *both* sides of the output.
    pub padding: (usize, usize),
    /// Rows and columns added at the end of the output, to choose among the sizes whose convolution has this input size.
    pub output_padding: (usize, usize),
    /// Distance between the kernel's taps, at least 1.
    pub dilation: (usize, usize),
    /// Number of groups.
    pub groups: usize,
}

impl ConvTranspose2dGeometry {
    /// `(Ho, Wo)`, with `Ho = (H − 1)·stride − 2·padding + dilation·(kh − 1) + output_padding + 1`, at least 0. An empty
    /// input gives an empty output.
    pub fn out_size(&self) -> (usize, usize) {
        let axis = |size: usize, k: usize, s: usize, p: usize, extra: usize, d: usize| {
            if size == 0 || k == 0 { 0 } else { ((size - 1) * s + d * (k - 1) + extra + 1).saturating_sub(2 * p) }
        };
        (
            axis(self.h, self.kh, self.stride.0, self.padding.0, self.output_padding.0, self.dilation.0),
            axis(self.w, self.kw, self.stride.1, self.padding.1, self.output_padding.1, self.dilation.1),
        )
    }

    /// The convolution `[n, o, Ho, Wo] → [n, c, h, w]` whose input gradient this is.
    pub fn adjoint(&self) -> Conv2dGeometry {
        let (h, w) = self.out_size();
        let ConvTranspose2dGeometry { n, c, o, kh, kw, stride, padding, dilation, groups, .. } = *self;
        Conv2dGeometry { n, c: o, h, w, o: c, kh, kw, stride, padding, dilation, groups }
    }

    /// The adjoint's plan, or nothing where the output is empty.
    fn plan(&self, x: usize, w: usize, y: usize) -> Option<Plan> {
        let adjoint = self.adjoint();
        if adjoint.input_len() == 0 {
            assert_eq!(x, self.n * self.c * self.h * self.w, "input length");
            assert_eq!(w, adjoint.weight_len(), "weight length");
            assert_eq!(y, 0, "output length");
            return None;
        }
        Some(Plan::new(&adjoint, (self.h, self.w), y, w, x))
    }
}

/// Transposed 2-D convolution: each input value adds a copy of the kernel, scaled by it, to the output.
///
/// `y[n, o', i·s + a·d − p, j·s + b·d − p] += w[c, o, a, b] · x[n, c, i, j]`, with `o' = o + group(c) · O/g`.
///
/// `x [N, C, H, W]`, `w [C, O/g, kh, kw]`, `y [N, O, Ho, Wo]` with `(Ho, Wo) = geo.out_size()`; `y` is overwritten. No bias.
///
/// # Panics
/// If a slice has not the length the geometry gives it, a stride or dilation is 0, or `groups` does not divide `C` and `O`.
pub fn conv_transpose2d<T: ConvElement>(geo: &ConvTranspose2dGeometry, x: &[T], w: &[T], y: &mut [T]) {
    if let Some(plan) = geo.plan(x.len(), w.len(), y.len()) {
        input_grad(&plan, x, w, y);
    }
}

/// Gradient of [`conv_transpose2d`] with respect to its input: the convolution of `dy [N, O, Ho, Wo]` with
/// `w [C, O/g, kh, kw]`. `dx [N, C, H, W]` is overwritten.
///
/// # Panics
/// As [`conv_transpose2d`].
pub fn conv_transpose2d_input_grad<T: ConvElement>(geo: &ConvTranspose2dGeometry, dy: &[T], w: &[T], dx: &mut [T]) {
    match geo.plan(dx.len(), w.len(), dy.len()) {
        Some(plan) => forward(&plan, dy, w, dx),
        None => dx.fill(T::zero()),
    }
}

/// Gradient of [`conv_transpose2d`] with respect to its weight, from `x [N, C, H, W]` and `dy [N, O, Ho, Wo]`.
/// `dw [C, O/g, kh, kw]` is overwritten; deterministic for any number of threads.
///
/// # Panics
/// As [`conv_transpose2d`].
pub fn conv_transpose2d_weight_grad<T: ConvElement>(geo: &ConvTranspose2dGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    match geo.plan(x.len(), dw.len(), dy.len()) {
        Some(plan) => weight_grad(&plan, dy, x, dw),
        None => dw.fill(T::zero()),
    }
}
