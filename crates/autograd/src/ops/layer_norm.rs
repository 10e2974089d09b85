//! Layer normalisation: the gradients of the input, the weight and the bias in one pass.

use crate::{Function, Saved, Var};
use ferrograd_tensor::{DType, Tensor};

/// `x` and those of its parameters that there are, in one dtype, raised under autocast.
pub(super) struct Operands {
    pub vars: Vec<Var>,
    pub weight: bool,
    pub bias: bool,
}

impl Operands {
    #[track_caller]
    pub fn new(x: &Var, weight: Option<&Var>, bias: Option<&Var>) -> Operands {
        let all = [Some(x), weight, bias].into_iter().flatten();
        let raised: Vec<Var> = all.map(Var::raised).collect();
        // An integer x is left for the operation to refuse.
        let dtype = raised.iter().map(Var::dtype).reduce(DType::promote).unwrap_or(DType::F32);
        let cast = |v: &Var| if v.dtype().is_float() { v.to_dtype(dtype) } else { v.clone() };
        Operands { vars: raised.iter().map(cast).collect(), weight: weight.is_some(), bias: bias.is_some() }
    }
    pub fn refs(&self) -> Vec<&Var> {
        self.vars.iter().collect()
    }
}

/// The weight and the bias among `[x, weight?, bias?]`.
pub(super) fn parameters<T>(inputs: &[T], weight: bool, bias: bool) -> (Option<&T>, Option<&T>) {
    (weight.then(|| &inputs[1]), bias.then(|| &inputs[1 + weight as usize]))
}

/// `[dx, dweight?, dbias?]`.
pub(super) fn gradients(dx: Tensor, dweight: Option<Tensor>, dbias: Option<Tensor>) -> Vec<Option<Var>> {
    let all = [Some(dx), dweight, dbias].into_iter().flatten();
    all.map(|g| Some(Var::constant(g))).collect()
}

/// `x` in f32 if it is a half type: what the fused kernels compute in.
pub(super) fn widened(x: &Var) -> Var {
    x.to_dtype(x.dtype().accumulator())
}

/// `(x − mean)·rstd·weight + bias`; inputs x, then weight and bias if there are any.
struct LayerNorm {
    normalized_shape: Vec<usize>,
    eps: f64,
    weight: bool,
    bias: bool,
}
impl Function for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }
    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let (weight, bias) = parameters(inputs, self.weight, self.bias);
        let (y, mean, rstd) = inputs[0].layer_norm_with_stats(&self.normalized_shape, weight, bias, self.eps);
        saved.save_inputs();
        saved.save(mean);
        saved.save(rstd);
        vec![y]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None; saved.num_inputs()] };
        let x = saved.input(0);
        let weight = self.weight.then(|| saved.input(1).into_tensor());
        let wanted = (1..saved.num_inputs()).any(|i| saved.needs_grad(i));
        let (mean, rstd) = (saved.tensor(0), saved.tensor(1));
        let (dx, parameters) =
            x.tensor().layer_norm_backward(&self.normalized_shape, weight.as_ref(), mean, rstd, g.tensor(), wanted);
        match parameters {
            Some((dw, db)) => gradients(dx, self.weight.then_some(dw), self.bias.then_some(db)),
            None => std::iter::once(Some(Var::constant(dx))).chain(vec![None; saved.num_inputs() - 1]).collect(),
        }
    }
    fn composed(&self, inputs: &[Var]) -> Option<Vec<Var>> {
        let (weight, bias) = parameters(inputs, self.weight, self.bias);
        let x = widened(&inputs[0]);
        let dims: Vec<usize> = (x.rank() - self.normalized_shape.len()..x.rank()).collect();
        let centred = &x - x.mean_keepdims(&dims[..]);
        let mut y = &centred * (centred.square().mean_keepdims(&dims[..]) + self.eps).rsqrt();
        if let Some(w) = weight {
            y = y * w;
        }
        if let Some(b) = bias {
            y = y + b;
        }
        Some(vec![y.to_dtype(inputs[0].dtype())])
    }
}

impl Var {
    /// `y = (x − mean) / √(variance + eps) · weight + bias` over the last dimensions, which are `normalized_shape`; see
    /// [`Tensor::layer_norm`]. f32 under autocast.
    #[track_caller]
    pub fn layer_norm(&self, normalized_shape: &[usize], weight: Option<&Var>, bias: Option<&Var>, eps: f64) -> Var {
        let operands = Operands::new(self, weight, bias);
        let Operands { weight, bias, .. } = operands;
        LayerNorm { normalized_shape: normalized_shape.to_vec(), eps, weight, bias }.apply1(&operands.refs())
    }
}
