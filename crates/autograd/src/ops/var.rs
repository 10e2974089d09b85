//! Variance and standard deviation.

use super::sum::dropped;
use crate::{Function, Saved, Var};
use ferrograd_tensor::{Axes, Shape, Tensor};

/// `v = Σ (x − mean)² / (n − correction)` over `dims`, which stay: `∂v/∂x = 2 (x − mean) / (n − correction)`.
struct Variance {
    dims: Vec<usize>,
    correction: usize,
}
/// `s = √v`: `∂s/∂x = (x − mean) / ((n − correction) s)`, and 0 where s is 0.
struct Std(Variance);

impl Variance {
    /// `(x − mean) / (n − correction)`.
    fn slope(&self, x: &Var, shape: &Shape) -> Var {
        let n: usize = self.dims.iter().map(|&d| shape[d]).product();
        let slope = 1.0 / n.saturating_sub(self.correction) as f64;
        (x - x.mean_keepdims(&self.dims[..])).mul_scalar(slope)
    }
}
impl Function for Variance {
    fn name(&self) -> &'static str {
        "var"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_input(0);
        vec![x[0].var_keepdims(&self.dims[..], self.correction)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| self.slope(&saved.input(0), saved.input_shape(0)) * g * 2.0)]
    }
}
impl Function for Std {
    fn name(&self) -> &'static str {
        "std"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_input(0);
        saved.save_output(0);
        vec![x[0].std_keepdims(&self.0.dims[..], self.0.correction)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let s = saved.output(0);
        vec![g[0].as_ref().map(|g| self.0.slope(&saved.input(0), saved.input_shape(0)) * (g * or_zero(&s)))]
    }
}

/// `1/y`, but 0 where `y` is 0: the subgradient of a root at its tip.
pub(super) fn or_zero(y: &Var) -> Var {
    let zero = y.tensor().eq_scalar(0.0).to_dtype(y.dtype());
    (y + &zero).recip() * &zero.rsub_scalar(1.0)
}

macro_rules! spread {
    ($($(#[$doc:meta])* $name:ident $dims:ident $keep:ident: $function:expr;)*) => {$(
        impl Var {
            $(#[$doc])*
            ///
            /// Over all elements, with correction 1.
            #[track_caller]
            pub fn $name(&self) -> Var {
                self.$dims(.., 1)
            }
            $(#[$doc])*
            ///
            /// Over the named dimensions, which disappear.
            #[track_caller]
            pub fn $dims(&self, dims: impl Axes, correction: usize) -> Var {
                let dims = dims.resolve(self.rank(), stringify!($name));
                dropped(self.$keep(&dims[..], correction), &dims)
            }
            $(#[$doc])*
            ///
            /// Over the named dimensions, which stay with extent 1.
            #[track_caller]
            pub fn $keep(&self, dims: impl Axes, correction: usize) -> Var {
                let dims = dims.resolve(self.rank(), stringify!($name)).to_vec();
                $function(Variance { dims, correction }, self.raised())
            }
        }
    )*};
}
spread! {
    /// The variance `Σ (x − mean)² / (n − correction)`, see [`Tensor::var_dims`].
    var var_dims var_keepdims: |f: Variance, x: Var| f.apply1(&[&x]);
    /// The standard deviation, the root of [`var_dims`](Var::var_dims). Its gradient is 0 where it is 0.
    std std_dims std_keepdims: |f: Variance, x: Var| Std(f).apply1(&[&x]);
}
