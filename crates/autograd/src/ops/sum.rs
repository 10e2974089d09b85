//! Sums, and their adjoint, expansion.

use crate::{Function, Saved, Var};
use ferrograd_tensor::{Axes, Shape, Tensor};

/// `y = Σ x` over `dims`, which stay with extent 1; the gradient is repeated along them.
struct Sum(Vec<usize>);
impl Function for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].sum_keepdims(&self.0[..])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| g.expand(saved.input_shape(0)))]
    }
}

/// `x` repeated to a larger shape; the gradient is summed.
struct Expand(Shape);
impl Function for Expand {
    fn name(&self) -> &'static str {
        "expand"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].expand(&self.0)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| g.sum_to(saved.input_shape(0)))]
    }
}

/// `y`, reduced to extent 1 along `dims`, without these dimensions.
#[track_caller]
pub(super) fn dropped(y: Var, dims: &[usize]) -> Var {
    let shape: Shape = (0..y.rank()).filter(|d| !dims.contains(d)).map(|d| y.dims()[d]).collect();
    y.reshape(shape)
}

impl Var {
    /// `Σ x` over all elements.
    #[track_caller]
    pub fn sum(&self) -> Var {
        self.sum_dims(..)
    }
    /// `Σ x` over the named dimensions, which disappear.
    #[track_caller]
    pub fn sum_dims(&self, dims: impl Axes) -> Var {
        let dims = dims.resolve(self.rank(), "sum");
        dropped(self.sum_keepdims(&dims[..]), &dims)
    }
    /// `Σ x` over the named dimensions, which stay with extent 1.
    #[track_caller]
    pub fn sum_keepdims(&self, dims: impl Axes) -> Var {
        let dims = dims.resolve(self.rank(), "sum");
        Sum(dims.to_vec()).apply1(&[&self.raised()])
    }
    /// Repeats dimensions of extent 1 (and new leading ones) to `shape`.
    #[track_caller]
    pub fn expand(&self, shape: impl Into<Shape>) -> Var {
        Expand(self.tensor().expand(shape).shape().clone()).apply1(&[self])
    }
}
