//! Vector norms.

use crate::shape::{Axes, Dims};
use crate::{Tensor, ensure};

impl Tensor {
    #[track_caller]
    fn norm_over(&self, p: f64, dims: &Dims) -> Tensor {
        const OP: &str = "norm";
        ensure!(!p.is_nan(), Value, OP, "p must be a number, got NaN");
        let nothing = dims.iter().any(|&d| self.dims()[d] == 0);
        ensure!(
            !nothing || p >= 0.0,
            Shape,
            OP,
            "no elements, so no norm with p = {p}: {} over dimensions {:?}",
            self.shape(),
            &dims[..]
        );
        let x = self.wide();
        let dims = &dims[..];
        let y = if p == 0.0 {
            x.ne_scalar(0.0).sum_keepdims(dims).to_dtype(x.dtype)
        } else if p == 1.0 {
            x.abs().sum_keepdims(dims)
        } else if p == 2.0 {
            x.square().sum_keepdims(dims).sqrt()
        } else if p == f64::INFINITY && nothing {
            x.sum_keepdims(dims)
        } else if p == f64::INFINITY {
            x.abs().max_keepdims(dims)
        } else if p == f64::NEG_INFINITY {
            x.abs().min_keepdims(dims)
        } else {
            x.abs().powf(p).sum_keepdims(dims).powf(1.0 / p)
        };
        if self.dtype.is_half() { y.to_dtype(self.dtype) } else { y }
    }
    /// `(Σ |x|ᵖ)^(1/p)` over all elements, see [`norm_dims`](Tensor::norm_dims).
    #[track_caller]
    pub fn norm(&self, p: f64) -> Tensor {
        self.norm_dims(p, ..)
    }
    /// `(Σ |x|ᵖ)^(1/p)` over the named dimensions, which disappear; for p = ∞ the largest |x|, for p = −∞ the smallest,
    /// for p = 0 the number of elements that are not 0.
    ///
    /// Half types compute in f32; integers become f32. 0 of nothing, where p ≥ 0.
    ///
    /// # Panics
    /// If p is NaN, or negative while there are no elements.
    #[track_caller]
    pub fn norm_dims(&self, p: f64, dims: impl Axes) -> Tensor {
        let dims = dims.resolve(self.rank(), "norm");
        self.norm_over(p, &dims).drop_dims(&dims)
    }
    /// [`norm_dims`](Tensor::norm_dims) whose dimensions stay with extent 1.
    #[track_caller]
    pub fn norm_keepdims(&self, p: f64, dims: impl Axes) -> Tensor {
        let dims = dims.resolve(self.rank(), "norm");
        self.norm_over(p, &dims)
    }
}
