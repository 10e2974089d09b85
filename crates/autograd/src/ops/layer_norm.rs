//! Layer normalisation: the gradients of the input, the weight and the bias in one pass.

use super::identity;
use crate::engine::differentiate_up_to;
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
        Operands::of(&[x], weight, bias)
    }
    /// With all of `xs` in place of one x.
    #[track_caller]
    pub fn of(xs: &[&Var], weight: Option<&Var>, bias: Option<&Var>) -> Operands {
        let all = xs.iter().copied().chain(weight).chain(bias);
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

/// `[dx, dweight?, dbias?]`, dx for each of `N` terms. Of the parameters those that there are, and their gradients if they are wanted.
pub(super) fn gradients<const N: usize>(dx: [Tensor; N], parameters: [Option<Option<Tensor>>; 2]) -> Vec<Option<Var>> {
    let all = dx.into_iter().map(Some).chain(parameters.into_iter().flatten());
    all.map(|g| g.map(Var::constant)).collect()
}

/// The two outputs.
pub(super) fn pair(outputs: Vec<Var>) -> (Var, Var) {
    let [y, sum]: [Var; 2] = outputs.try_into().expect("two outputs");
    (y, sum)
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
        let (dw, db) = parameters.unzip();
        gradients([dx], [self.weight.then_some(dw), self.bias.then_some(db)])
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

/// `sum = x + residual` and its norm; inputs x, residual, then weight and bias if there are any.
struct AddLayerNorm(LayerNorm);
impl Function for AddLayerNorm {
    fn name(&self) -> &'static str {
        "add_layer_norm"
    }
    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let LayerNorm { normalized_shape, eps, weight, bias } = &self.0;
        let (weight, bias) = parameters(&inputs[1..], *weight, *bias);
        let (y, sum, mean, rstd) =
            inputs[0].add_layer_norm_with_stats(&inputs[1], normalized_shape, weight, bias, *eps);
        save_sum(saved);
        saved.save(mean);
        saved.save(rstd);
        vec![y, sum]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let (Some(g_y), false) = (&g[0], saved.create_graph()) else { return backward_of_sum(&self.0, saved, g) };
        let LayerNorm { normalized_shape, weight, bias, .. } = &self.0;
        let (sum, w) = (saved.output(1).into_tensor(), weight.then(|| saved.input(2).into_tensor()));
        let wanted = (2..saved.num_inputs()).any(|i| saved.needs_grad(i));
        let (mean, rstd, g_y) = (saved.tensor(0), saved.tensor(1), g_y.tensor());
        let (dx, parameters) = match &g[1] {
            Some(g_sum) => {
                let g_sum = g_sum.tensor();
                sum.add_layer_norm_backward(normalized_shape, w.as_ref(), mean, rstd, g_y, g_sum, wanted)
            }
            None => sum.layer_norm_backward(normalized_shape, w.as_ref(), mean, rstd, g_y, wanted),
        };
        let (dw, db) = parameters.unzip();
        gradients([dx.clone(), dx], [weight.then_some(dw), bias.then_some(db)])
    }
}

/// What a norm of a sum keeps: the sum and the parameters, but neither summand.
pub(super) fn save_sum(saved: &mut Saved) {
    saved.save_output(1);
    (2..saved.num_inputs()).for_each(|i| saved.save_input(i));
}

/// The gradients of a sum's two terms and of `norm`'s parameters in [`Var`] operations: those of the norm's composed form at
/// the sum, which has its own history, and what reaches the sum from elsewhere.
pub(super) fn backward_of_sum(norm: &impl Function, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
    let kept = std::iter::once(saved.output(1)).chain((2..saved.num_inputs()).map(|i| saved.input(i)));
    // Fresh identities, at which the walk stops.
    let inputs: Vec<Var> = kept.map(|x| if x.requires_grad() { identity(&x) } else { x }).collect();
    let mut found = match &g[0] {
        Some(g) => {
            let y = norm.composed(&inputs).expect("a norm has a composed form");
            differentiate_up_to(&inputs.iter().collect::<Vec<_>>(), &y, vec![g.clone()], true)
        }
        None => vec![None; inputs.len()],
    };
    let of_sum = match (found.remove(0), &g[1]) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b.clone()),
    };
    [of_sum.clone(), of_sum].into_iter().chain(found).collect()
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
    /// `sum = x + residual` and `y = layer_norm(sum)`, fused: `(y, sum)`; see [`Tensor::add_layer_norm`]. Keeps the sum for the
    /// gradient, and neither of its terms. y is f32 under autocast; the sum has the dtype of its terms.
    #[track_caller]
    pub fn add_layer_norm(
        &self,
        residual: &Var,
        normalized_shape: &[usize],
        weight: Option<&Var>,
        bias: Option<&Var>,
        eps: f64,
    ) -> (Var, Var) {
        let operands = Operands::of(&[self, residual], weight, bias);
        let Operands { weight, bias, .. } = operands;
        let norm = LayerNorm { normalized_shape: normalized_shape.to_vec(), eps, weight, bias };
        let (y, sum) = pair(AddLayerNorm(norm).apply(&operands.refs()));
        (y, sum.to_dtype(self.dtype().promote(residual.dtype())))
    }
}
