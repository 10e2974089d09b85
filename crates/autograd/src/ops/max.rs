//! Largest and smallest elements over dimensions: equals share the gradient.

use super::sum::dropped;
use crate::{Function, Saved, Var};
use ferrograd_tensor::{Axes, DType, Tensor};

/// Where `hit` is true, one over the number of hits along `dims`; elsewhere 0. In `dtype`.
pub(super) fn shares(hit: &Tensor, dims: &[usize], dtype: DType) -> Tensor {
    let wide = dtype.promote(DType::F32);
    (hit.to_dtype(wide) / hit.sum_keepdims(dims).to_dtype(wide)).to_dtype(dtype)
}

/// `y = max x` (or min) over `dims`, which stay with extent 1.
struct Extremum {
    largest: bool,
    dims: Vec<usize>,
}
impl Function for Extremum {
    fn name(&self) -> &'static str {
        if self.largest { "max" } else { "min" }
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_input(0);
        saved.save_output(0);
        vec![if self.largest { x[0].max_keepdims(&self.dims[..]) } else { x[0].min_keepdims(&self.dims[..]) }]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let (x, y) = (saved.input(0), saved.output(0));
        // NaN equals nothing, but wins: it is what the result depends on.
        let hit = x.tensor().eq(y.tensor()).logical_or(&x.tensor().is_nan());
        let shares = shares(&hit, &self.dims, x.dtype());
        vec![g[0].as_ref().map(|g| g * &shares)]
    }
}

macro_rules! extrema {
    ($($(#[$doc:meta])* $name:ident $dims:ident $keep:ident: $largest:expr;)*) => {$(
        impl Var {
            $(#[$doc])*
            ///
            /// Over all elements.
            #[track_caller]
            pub fn $name(&self) -> Var {
                self.$dims(..)
            }
            $(#[$doc])*
            ///
            /// Over the named dimensions, which disappear.
            #[track_caller]
            pub fn $dims(&self, dims: impl Axes) -> Var {
                let dims = dims.resolve(self.rank(), stringify!($name));
                dropped(self.$keep(&dims[..]), &dims)
            }
            $(#[$doc])*
            ///
            /// Over the named dimensions, which stay with extent 1.
            #[track_caller]
            pub fn $keep(&self, dims: impl Axes) -> Var {
                let dims = dims.resolve(self.rank(), stringify!($name)).to_vec();
                Extremum { largest: $largest, dims }.apply1(&[self])
            }
        }
    )*};
}
extrema! {
    /// The largest; NaN wins. Equally large elements share the gradient equally.
    max max_dims max_keepdims: true;
    /// The smallest; NaN wins. Equally small elements share the gradient equally.
    min min_dims min_keepdims: false;
}
