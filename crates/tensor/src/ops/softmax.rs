//! Softmax and its logarithm.

use crate::shape::axis;
use crate::{Tensor, ensure};

#[track_caller]
fn check(op: &'static str, x: &Tensor, dim: isize) -> usize {
    ensure!(x.dtype().is_float(), DType, op, "needs a float tensor, got {} (cast with to_dtype)", x.dtype());
    axis(dim, x.rank(), op)
}

impl Tensor {
    /// `y_i = e^{x_i} / Σ_j e^{x_j}` along `dim`, computed from `x − max x`, so that nothing overflows. The shape and dtype
    /// are x's; half types compute in f32. A row of nothing but −∞, or with +∞ or NaN in it, gives NaN.
    ///
    /// # Panics
    /// With a DType error unless x is a float, with an Index error if there is no such dimension.
    #[track_caller]
    pub fn softmax(&self, dim: isize) -> Tensor {
        let dim = check("softmax", self, dim);
        self.device.backend().softmax(self, dim).unwrap_or_else(|| composed(self, dim))
    }
    /// `y_i = x_i − ln Σ_j e^{x_j}` along `dim`: the logarithm of [`softmax`](Tensor::softmax), accurate where that is tiny.
    ///
    /// # Panics
    /// As [`softmax`](Tensor::softmax).
    #[track_caller]
    pub fn log_softmax(&self, dim: isize) -> Tensor {
        let dim = check("log_softmax", self, dim);
        self.device.backend().log_softmax(self, dim).unwrap_or_else(|| composed_log(self, dim))
    }
    /// `∂L/∂x = y·(g − Σ g·y)` from this softmax `y` along `dim` and `g = ∂L/∂y` of its shape and dtype.
    #[track_caller]
    pub fn softmax_backward(&self, g: &Tensor, dim: isize) -> Tensor {
        const OP: &str = "softmax_backward";
        let dim = check(OP, self, dim);
        check_gradient(OP, self, g);
        self.device.backend().softmax_backward(self, g, dim).unwrap_or_else(|| composed_backward(self, g, dim))
    }
    /// `∂L/∂x = g − eʸ·Σ g` from this log-softmax `y` along `dim` and `g = ∂L/∂y` of its shape and dtype.
    #[track_caller]
    pub fn log_softmax_backward(&self, g: &Tensor, dim: isize) -> Tensor {
        const OP: &str = "log_softmax_backward";
        let dim = check(OP, self, dim);
        check_gradient(OP, self, g);
        self.device.backend().log_softmax_backward(self, g, dim).unwrap_or_else(|| composed_log_backward(self, g, dim))
    }
}

/// The gradient of an output looks like the output.
#[track_caller]
pub(super) fn check_gradient(op: &'static str, y: &Tensor, g: &Tensor) {
    ensure!(g.shape() == y.shape(), Shape, op, "the gradient {} and the output {} differ", g.shape(), y.shape());
    ensure!(g.dtype() == y.dtype(), DType, op, "the gradient is {} and the output {}", g.dtype(), y.dtype());
    crate::tensor::same_device(op, &[y, g]);
}

/// `x` in the dtype that sums of it are accumulated in.
pub(super) fn widened(x: &Tensor) -> Tensor {
    x.to_dtype(x.dtype().accumulator())
}

/// `x − max x` along `dim`.
fn shifted(x: &Tensor, dim: usize) -> Tensor {
    let x = widened(x);
    if x.numel() == 0 { x } else { &x - x.max_keepdims(dim) }
}

/// [`Tensor::softmax`] in elementwise operations and reductions: what a backend without the fused kernel runs.
pub fn composed(x: &Tensor, dim: usize) -> Tensor {
    let e = shifted(x, dim).exp();
    (&e / e.sum_keepdims(dim)).to_dtype(x.dtype())
}

/// [`Tensor::log_softmax`], likewise.
pub fn composed_log(x: &Tensor, dim: usize) -> Tensor {
    let s = shifted(x, dim);
    (&s - s.exp().sum_keepdims(dim).log()).to_dtype(x.dtype())
}

/// [`Tensor::softmax_backward`], likewise.
pub fn composed_backward(y: &Tensor, g: &Tensor, dim: usize) -> Tensor {
    let (wide, g) = (widened(y), widened(g));
    (&wide * (&g - (&g * &wide).sum_keepdims(dim))).to_dtype(y.dtype())
}

/// [`Tensor::log_softmax_backward`], likewise.
pub fn composed_log_backward(y: &Tensor, g: &Tensor, dim: usize) -> Tensor {
    let g = widened(g);
    (&g - widened(y).exp() * g.sum_keepdims(dim)).to_dtype(y.dtype())
}
