//! The linear map of a layer: `∂L/∂x = G W`, `∂L/∂W = Gᵀ X`, `∂L/∂b = Σ_rows G`, over flattened rows.

use super::layer_norm::parameters;
use crate::{Function, Saved, Var};
use ferrograd_tensor::{DType, Tensor};

/// `y = x Wᵀ + b`; inputs x, W, then b if there is one.
struct Linear {
    bias: bool,
}
impl Function for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        let (weight, bias) = parameters(inputs, true, self.bias);
        vec![inputs[0].linear(weight.expect("a weight"), bias)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None; saved.num_inputs()] };
        let (x, w) = (saved.input(0).into_tensor(), saved.input(1).into_tensor());
        let [o, i] = [w.dims()[0], w.dims()[1]];
        let rows = x.dims()[..x.rank() - 1].iter().product();
        let g = g.tensor().reshape([rows, o]);
        let dx = saved.needs_grad(0).then(|| g.matmul(&w).reshape(x.shape()));
        let dw = saved.needs_grad(1).then(|| weight_grad(&g, &x.reshape([rows, i]), &w));
        let mut all = vec![dx, dw];
        if self.bias {
            all.push(saved.needs_grad(2).then(|| g.sum_dims(0)));
        }
        all.into_iter().map(|g| g.map(Var::constant)).collect()
    }
    fn composed(&self, inputs: &[Var]) -> Option<Vec<Var>> {
        let x = &inputs[0];
        // A vector counts as a row in a matrix product already.
        let y = x.matmul(&inputs[1].t());
        Some(vec![if self.bias { y + &inputs[2] } else { y }])
    }
}

/// `∂L/∂W = Gᵀ X` of `g [R, O]` and `x [R, I]`, in the order in which the weight lies: a gradient in another would be copied before it is used.
pub(super) fn weight_grad(g: &Tensor, x: &Tensor, w: &Tensor) -> Tensor {
    if w.is_contiguous() { g.t().matmul(x) } else { x.t().matmul(g).t() }
}

/// In the autocast dtype, and in one.
#[track_caller]
pub(super) fn of_one_dtype<const N: usize>(inputs: [Option<&Var>; N]) -> Vec<Var> {
    let lowered: Vec<Var> = inputs.into_iter().flatten().map(Var::lowered).collect();
    let dtype = lowered.iter().map(Var::dtype).reduce(DType::promote).unwrap_or(DType::F32);
    // An integer x is left for the operation to refuse.
    let cast = |v: &Var| if v.dtype().is_float() { v.to_dtype(dtype) } else { v.clone() };
    lowered.iter().map(cast).collect()
}

impl Var {
    /// `y = x Wᵀ + b`: `x [..., I]`, `weight [O, I]`, `bias [O]`, `y [..., O]`; see [`Tensor::linear`]. Computes in the
    /// autocast dtype.
    #[track_caller]
    pub fn linear(&self, weight: &Var, bias: Option<&Var>) -> Var {
        let inputs = of_one_dtype([Some(self), Some(weight), bias]);
        Linear { bias: bias.is_some() }.apply1(&inputs.iter().collect::<Vec<_>>())
    }
}
