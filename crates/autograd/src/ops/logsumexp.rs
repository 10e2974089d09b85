//! `ln Σ eˣ`, whose derivative is softmax.

use super::sum::dropped;
use super::var::or_zero;
use crate::{Function, Saved, Var};
use ferrograd_tensor::{Axes, Tensor};

/// `y = ln Σ eˣ` over `dims`, which stay: `∂y/∂x = eˣ⁻ʸ`, the softmax; 0 where all x are −∞.
struct Logsumexp(Vec<usize>);
impl Function for Logsumexp {
    fn name(&self) -> &'static str {
        "logsumexp"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_input(0);
        saved.save_output(0);
        vec![x[0].logsumexp_keepdims(&self.0[..])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None] };
        let (x, y) = (saved.input(0), saved.output(0));
        let nothing = y.tensor().eq_scalar(f64::NEG_INFINITY);
        if !saved.create_graph() {
            // −∞ − 0 in place of −∞ + ∞.
            let y = y.tensor().masked_fill(&nothing, 0.0);
            return vec![Some(Var::constant(x.tensor().sub(&y).exp() * g.tensor()))];
        }
        let shift = y.tensor().masked_fill(&y.tensor().is_finite().logical_not(), 0.0);
        let e = (x - &shift).exp();
        let softmax = &e * or_zero(&e.sum_keepdims(&self.0[..]));
        vec![Some(softmax * g)]
    }
}

impl Var {
    /// `ln Σ eˣ` over the named dimensions, which disappear, see [`Tensor::logsumexp_dims`].
    #[track_caller]
    pub fn logsumexp_dims(&self, dims: impl Axes) -> Var {
        let dims = dims.resolve(self.rank(), "logsumexp");
        dropped(self.logsumexp_keepdims(&dims[..]), &dims)
    }
    /// [`logsumexp_dims`](Var::logsumexp_dims) whose dimensions stay with extent 1.
    #[track_caller]
    pub fn logsumexp_keepdims(&self, dims: impl Axes) -> Var {
        let dims = dims.resolve(self.rank(), "logsumexp");
        Logsumexp(dims.to_vec()).apply1(&[&self.raised()])
    }
}
