//! Root-mean-square normalisation: the gradients of the input and the weight in one pass.

use super::layer_norm::{Operands, backward_of_sum, gradients, pair, parameters, save_sum, widened};
use crate::{Function, Saved, Var};
use ferrograd_tensor::Tensor;

/// `x·rstd·weight`; inputs x, then weight if there is one.
struct RmsNorm {
    normalized_shape: Vec<usize>,
    eps: f64,
    weight: bool,
}
impl Function for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }
    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let (weight, _) = parameters(inputs, self.weight, false);
        let (y, rstd) = inputs[0].rms_norm_with_stats(&self.normalized_shape, weight, self.eps);
        saved.save_inputs();
        saved.save(rstd);
        vec![y]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None; saved.num_inputs()] };
        let x = saved.input(0);
        let weight = self.weight.then(|| saved.input(1).into_tensor());
        let wanted = self.weight && saved.needs_grad(1);
        let rstd = saved.tensor(0);
        let (dx, dw) = x.tensor().rms_norm_backward(&self.normalized_shape, weight.as_ref(), rstd, g.tensor(), wanted);
        gradients([dx], [self.weight.then_some(dw), None])
    }
    fn composed(&self, inputs: &[Var]) -> Option<Vec<Var>> {
        let x = widened(&inputs[0]);
        let dims: Vec<usize> = (x.rank() - self.normalized_shape.len()..x.rank()).collect();
        let mut y = &x * (x.square().mean_keepdims(&dims[..]) + self.eps).rsqrt();
        if let (Some(w), _) = parameters(inputs, self.weight, false) {
            y = y * w;
        }
        Some(vec![y.to_dtype(inputs[0].dtype())])
    }
}

/// `sum = x + residual` and its norm; inputs x, residual, then weight if there is one.
struct AddRmsNorm(RmsNorm);
impl Function for AddRmsNorm {
    fn name(&self) -> &'static str {
        "add_rms_norm"
    }
    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let RmsNorm { normalized_shape, eps, weight } = &self.0;
        let (weight, _) = parameters(&inputs[1..], *weight, false);
        let (y, sum, rstd) = inputs[0].add_rms_norm_with_stats(&inputs[1], normalized_shape, weight, *eps);
        save_sum(saved);
        saved.save(rstd);
        vec![y, sum]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let (Some(g_y), false) = (&g[0], saved.create_graph()) else { return backward_of_sum(&self.0, saved, g) };
        let RmsNorm { normalized_shape, weight, .. } = &self.0;
        let (sum, w) = (saved.output(1).into_tensor(), weight.then(|| saved.input(2).into_tensor()));
        let wanted = *weight && saved.needs_grad(2);
        let (rstd, g_y) = (saved.tensor(0), g_y.tensor());
        let (dx, dw) = match &g[1] {
            Some(g_sum) => sum.add_rms_norm_backward(normalized_shape, w.as_ref(), rstd, g_y, g_sum.tensor(), wanted),
            None => sum.rms_norm_backward(normalized_shape, w.as_ref(), rstd, g_y, wanted),
        };
        gradients([dx.clone(), dx], [weight.then_some(dw), None])
    }
}

impl Var {
    /// `y = x / √(mean x² + eps) · weight` over the last dimensions, which are `normalized_shape`; see [`Tensor::rms_norm`].
    /// f32 under autocast.
    #[track_caller]
    pub fn rms_norm(&self, normalized_shape: &[usize], weight: Option<&Var>, eps: f64) -> Var {
        let operands = Operands::new(self, weight, None);
        RmsNorm { normalized_shape: normalized_shape.to_vec(), eps, weight: operands.weight }.apply1(&operands.refs())
    }
    /// `sum = x + residual` and `y = rms_norm(sum)`, fused: `(y, sum)`; see [`Tensor::add_rms_norm`]. Keeps the sum for the
    /// gradient, and neither of its terms. y is f32 under autocast; the sum has the dtype of its terms.
    #[track_caller]
    pub fn add_rms_norm(
        &self,
        residual: &Var,
        normalized_shape: &[usize],
        weight: Option<&Var>,
        eps: f64,
    ) -> (Var, Var) {
        let operands = Operands::of(&[self, residual], weight, None);
        let norm = RmsNorm { normalized_shape: normalized_shape.to_vec(), eps, weight: operands.weight };
        let (y, sum) = pair(AddRmsNorm(norm).apply(&operands.refs()));
        (y, sum.to_dtype(self.dtype().promote(residual.dtype())))
    }
}
