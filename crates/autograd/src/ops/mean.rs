//! Means.

use super::sum::dropped;
use crate::{Function, Saved, Var};
use ferrograd_tensor::{Axes, Tensor};

/// `y = 1/n Σ x` over `dims`, which stay with extent 1: each of the n elements gets `g/n`.
struct Mean(Vec<usize>);
impl Function for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].mean_keepdims(&self.0[..])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let shape = saved.input_shape(0);
        let n: usize = self.0.iter().map(|&d| shape[d]).product();
        vec![g[0].as_ref().map(|g| g.mul_scalar(1.0 / n as f64).expand(shape))]
    }
}

impl Var {
    /// `1/n Σ x` over all elements. NaN of nothing.
    #[track_caller]
    pub fn mean(&self) -> Var {
        self.mean_dims(..)
    }
    /// `1/n Σ x` over the named dimensions, which disappear.
    #[track_caller]
    pub fn mean_dims(&self, dims: impl Axes) -> Var {
        let dims = dims.resolve(self.rank(), "mean");
        dropped(self.mean_keepdims(&dims[..]), &dims)
    }
    /// `1/n Σ x` over the named dimensions, which stay with extent 1.
    #[track_caller]
    pub fn mean_keepdims(&self, dims: impl Axes) -> Var {
        let dims = dims.resolve(self.rank(), "mean");
        Mean(dims.to_vec()).apply1(&[&self.raised()])
    }
}
