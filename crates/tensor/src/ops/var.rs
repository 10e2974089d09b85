//! Variance and standard deviation.

use crate::Tensor;
use crate::shape::{Axes, Dims};

impl Tensor {
    /// The variance in the type it is computed in: f32 for half types.
    #[track_caller]
    fn wide_var(&self, dims: &Dims, correction: usize) -> Tensor {
        let x = self.wide();
        if let Some((_, var)) = x.device.backend().mean_var(&x, dims, correction as f64) {
            return var;
        }
        let n: usize = dims.iter().map(|&d| x.dims()[d]).product();
        let mean = x.mean_keepdims(&dims[..]);
        (&x - &mean).square().sum_keepdims(&dims[..]).div_scalar(n.saturating_sub(correction) as f64)
    }
    fn narrow_to_input(&self, y: Tensor) -> Tensor {
        if self.dtype.is_half() { y.to_dtype(self.dtype) } else { y }
    }
}

macro_rules! spread {
    ($($(#[$doc:meta])* $name:ident $dims:ident $keep:ident: $root:expr;)*) => {$(
        impl Tensor {
            $(#[$doc])*
            ///
            /// Over all elements, with correction 1.
            #[track_caller]
            pub fn $name(&self) -> Tensor {
                self.$dims(.., 1)
            }
            $(#[$doc])*
            ///
            /// Over the named dimensions, which disappear.
            #[track_caller]
            pub fn $dims(&self, dims: impl Axes, correction: usize) -> Tensor {
                let dims = dims.resolve(self.rank(), stringify!($name));
                self.$keep(&dims[..], correction).drop_dims(&dims)
            }
            $(#[$doc])*
            ///
            /// Over the named dimensions, which stay with extent 1.
            #[track_caller]
            pub fn $keep(&self, dims: impl Axes, correction: usize) -> Tensor {
                let dims = dims.resolve(self.rank(), stringify!($name));
                let var = self.wide_var(&dims, correction);
                self.narrow_to_input($root(var))
            }
        }
    )*};
}
spread! {
    /// The variance `Σ (x − mean)² / (n − correction)`, in two passes: correction 1 is unbiased, 0 the population's.
    ///
    /// Half types compute in f32; integers become f32. NaN or ∞ where n ≤ correction, as the formula has it.
    var var_dims var_keepdims: |v: Tensor| v;
    /// The standard deviation, the square root of [`var_dims`](Tensor::var_dims).
    std std_dims std_keepdims: |v: Tensor| v.sqrt();
}
