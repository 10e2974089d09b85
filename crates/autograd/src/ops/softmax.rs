//! Softmax and its logarithm, from their outputs.

use crate::{Function, Saved, Var};
use ferrograd_tensor::{Tensor, shape::axis};

/// `y = softmax(x)` along a dimension; `∂L/∂x = y·(g − Σ g·y)`.
struct Softmax(isize);
impl Function for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_output(0);
        vec![x[0].softmax(self.0)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None] };
        let y = saved.output(0);
        vec![Some(match saved.create_graph() {
            true => &y * (g - (g * &y).sum_keepdims(self.0)),
            false => Var::constant(y.tensor().softmax_backward(g.tensor(), self.0)),
        })]
    }
}

/// `y = ln softmax(x)` along a dimension; `∂L/∂x = g − eʸ·Σ g`.
struct LogSoftmax(isize);
impl Function for LogSoftmax {
    fn name(&self) -> &'static str {
        "log_softmax"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_output(0);
        vec![x[0].log_softmax(self.0)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None] };
        let y = saved.output(0);
        vec![Some(match saved.create_graph() {
            true => g - y.exp() * g.sum_keepdims(self.0),
            false => Var::constant(y.tensor().log_softmax_backward(g.tensor(), self.0)),
        })]
    }
}

impl Var {
    /// `y_i = e^{x_i} / Σ_j e^{x_j}` along `dim`, see [`Tensor::softmax`]. f32 under autocast.
    #[track_caller]
    pub fn softmax(&self, dim: isize) -> Var {
        axis(dim, self.rank(), "softmax");
        Softmax(dim).apply1(&[&self.raised()])
    }
    /// `y_i = x_i − ln Σ_j e^{x_j}` along `dim`, see [`Tensor::log_softmax`]. f32 under autocast.
    #[track_caller]
    pub fn log_softmax(&self, dim: isize) -> Var {
        axis(dim, self.rank(), "log_softmax");
        LogSoftmax(dim).apply1(&[&self.raised()])
    }
}
