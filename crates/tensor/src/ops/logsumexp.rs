//! `ln Σ eˣ` that neither overflows nor underflows.

use crate::Tensor;
use crate::shape::{Axes, Dims};

impl Tensor {
    #[track_caller]
    fn logsumexp_over(&self, dims: &Dims) -> Tensor {
        let x = self.wide();
        let nothing = dims.iter().any(|&d| x.dims()[d] == 0);
        let y = if nothing {
            x.sum_keepdims(&dims[..]).full_like(f64::NEG_INFINITY)
        } else {
            // ln Σ eˣ = m + ln Σ e^(x−m). Where m is infinite there is no shift: ∞ − ∞ would be NaN.
            let m = x.max_keepdims(&dims[..]);
            let m = m.is_finite().where_(&m, &m.zeros_like());
            (&x - &m).exp().sum_keepdims(&dims[..]).log() + m
        };
        if self.dtype.is_half() { y.to_dtype(self.dtype) } else { y }
    }
    /// `ln Σ eˣ` over the named dimensions, which disappear. −∞ of nothing and where all is −∞, +∞ where an element is.
    ///
    /// Shifted by the maximum, so that no finite x overflows. Half types compute in f32; integers become f32.
    #[track_caller]
    pub fn logsumexp_dims(&self, dims: impl Axes) -> Tensor {
        let dims = dims.resolve(self.rank(), "logsumexp");
        self.logsumexp_over(&dims).drop_dims(&dims)
    }
    /// [`logsumexp_dims`](Tensor::logsumexp_dims) whose dimensions stay with extent 1.
    #[track_caller]
    pub fn logsumexp_keepdims(&self, dims: impl Axes) -> Tensor {
        let dims = dims.resolve(self.rank(), "logsumexp");
        self.logsumexp_over(&dims)
    }
}
