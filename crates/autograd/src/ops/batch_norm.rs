//! Batch normalisation: the gradients of the input, the weight and the bias in one pass, in training through the statistics.

use super::group_norm::column;
use super::layer_norm::{Operands, gradients, parameters, widened};
use crate::{Function, Saved, Var};
use ferrograd_tensor::Tensor;

/// Channels normalised by the statistics of the batch; inputs x, then weight and bias if there are any. The outputs are y,
/// the mean and the biased variance; only y has a gradient.
struct BatchNorm {
    eps: f64,
    weight: bool,
    bias: bool,
}
impl Function for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }
    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let (weight, bias) = parameters(inputs, self.weight, self.bias);
        let (y, mean, variance) = inputs[0].batch_norm(weight, bias, self.eps);
        saved.save_inputs();
        if saved.is_recording() {
            saved.save(mean.clone());
            saved.save((&variance + self.eps).rsqrt());
        }
        vec![y, mean, variance]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        backward(saved, &g[0], self.weight, self.bias, true)
    }
    fn composed(&self, inputs: &[Var]) -> Option<Vec<Var>> {
        let x = widened(&inputs[0]);
        let dims: Vec<usize> = (0..x.rank()).filter(|&d| d != 1).collect();
        let mean = x.mean_keepdims(&dims[..]);
        let variance = (&x - &mean).square().mean_keepdims(&dims[..]);
        let y = normalised(&x, &mean, &variance, self.eps, parameters(inputs, self.weight, self.bias));
        let flat = |v: &Var| v.reshape(x.dim(1));
        Some(vec![y.to_dtype(inputs[0].dtype()), flat(&mean), flat(&variance)])
    }
}

/// Channels normalised by given statistics; inputs x, then weight and bias if there are any.
struct BatchNormEval {
    mean: Tensor,
    variance: Tensor,
    eps: f64,
    weight: bool,
    bias: bool,
}
impl Function for BatchNormEval {
    fn name(&self) -> &'static str {
        "batch_norm_eval"
    }
    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let (weight, bias) = parameters(inputs, self.weight, self.bias);
        let y = inputs[0].batch_norm_eval(&self.mean, &self.variance, weight, bias, self.eps);
        saved.save_inputs();
        if saved.is_recording() {
            let dtype = y.dtype().accumulator();
            saved.save(self.mean.to_dtype(dtype));
            saved.save((self.variance.to_dtype(dtype) + self.eps).rsqrt());
        }
        vec![y]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        backward(saved, &g[0], self.weight, self.bias, false)
    }
    fn composed(&self, inputs: &[Var]) -> Option<Vec<Var>> {
        let x = widened(&inputs[0]);
        let stat = |t: &Tensor| column(&Var::constant(t.to_dtype(x.dtype())), x.rank());
        let (mean, variance) = (stat(&self.mean), stat(&self.variance));
        let y = normalised(&x, &mean, &variance, self.eps, parameters(inputs, self.weight, self.bias));
        Some(vec![y.to_dtype(inputs[0].dtype())])
    }
}

fn backward(saved: &Saved, g: &Option<Var>, weight: bool, bias: bool, training: bool) -> Vec<Option<Var>> {
    let Some(g) = g else { return vec![None; saved.num_inputs()] };
    let x = saved.input(0);
    let w = weight.then(|| saved.input(1).into_tensor());
    let (mean, rstd) = (saved.tensor(0), saved.tensor(1));
    let (dx, dw, db) = x.tensor().batch_norm_backward(w.as_ref(), mean, rstd, g.tensor(), training);
    gradients([dx], [weight.then_some(Some(dw)), bias.then_some(Some(db))])
}

/// `(x − mean) / √(variance + eps) · weight + bias`, the statistics in a shape that broadcasts.
fn normalised(x: &Var, mean: &Var, variance: &Var, eps: f64, (weight, bias): (Option<&Var>, Option<&Var>)) -> Var {
    let mut y = (x - mean) * (variance + eps).rsqrt();
    if let Some(w) = weight {
        y = y * column(w, x.rank());
    }
    if let Some(b) = bias {
        y = y + column(b, x.rank());
    }
    y
}

impl Var {
    /// Batch norm in training: each channel (dimension 1) normalised by its mean and biased variance over the batch and all
    /// positions; `(y, mean [C], biased variance [C])`, see [`Tensor::batch_norm`]. The gradient goes through the statistics,
    /// but the two that are returned, for the running averages, have no history. f32 under autocast.
    #[track_caller]
    pub fn batch_norm(&self, weight: Option<&Var>, bias: Option<&Var>, eps: f64) -> (Var, Tensor, Tensor) {
        let operands = Operands::new(self, weight, bias);
        let Operands { weight, bias, .. } = operands;
        let mut outputs = BatchNorm { eps, weight, bias }.apply(&operands.refs()).into_iter();
        let mut next = || outputs.next().expect("three outputs");
        (next(), next().into_tensor(), next().into_tensor())
    }
    /// Batch norm in evaluation, by given statistics `[C]`; see [`Tensor::batch_norm_eval`]. f32 under autocast.
    #[track_caller]
    pub fn batch_norm_eval(
        &self,
        mean: &Tensor,
        variance: &Tensor,
        weight: Option<&Var>,
        bias: Option<&Var>,
        eps: f64,
    ) -> Var {
        let operands = Operands::new(self, weight, bias);
        let Operands { weight, bias, .. } = operands;
        BatchNormEval { mean: mean.clone(), variance: variance.clone(), eps, weight, bias }.apply1(&operands.refs())
    }
}
