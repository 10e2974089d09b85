//! Root-mean-square normalisation: the gradients of the input and the weight in one pass.

use super::layer_norm::{Operands, gradients, parameters, widened};
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
        let rstd = saved.tensor(0);
        let (dx, dw) =
            x.tensor().rms_norm_backward(&self.normalized_shape, weight.as_ref(), rstd, g.tensor(), self.weight);
        gradients(dx, dw, None)
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

impl Var {
    /// `y = x / √(mean x² + eps) · weight` over the last dimensions, which are `normalized_shape`; see [`Tensor::rms_norm`].
    /// f32 under autocast.
    #[track_caller]
    pub fn rms_norm(&self, normalized_shape: &[usize], weight: Option<&Var>, eps: f64) -> Var {
        let operands = Operands::new(self, weight, None);
        RmsNorm { normalized_shape: normalized_shape.to_vec(), eps, weight: operands.weight }.apply1(&operands.refs())
    }
}
