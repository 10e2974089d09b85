//! Group normalisation: the gradients of the input, the weight and the bias in one pass.

use super::layer_norm::{Operands, gradients, parameters, widened};
use crate::{Function, Saved, Var};
use ferrograd_tensor::{Shape, Tensor};

/// A parameter `[C]` as `[C, 1, …, 1]`, to go with an x of `rank` dimensions.
pub(super) fn column(p: &Var, rank: usize) -> Var {
    let shape: Shape = std::iter::once(p.numel()).chain(std::iter::repeat_n(1, rank - 2)).collect();
    p.reshape(shape)
}

/// Groups of channels normalised by their own statistics; inputs x, then weight and bias if there are any.
struct GroupNorm {
    groups: usize,
    eps: f64,
    weight: bool,
    bias: bool,
}
impl Function for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }
    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let (weight, bias) = parameters(inputs, self.weight, self.bias);
        let (y, mean, rstd) = inputs[0].group_norm_with_stats(self.groups, weight, bias, self.eps);
        saved.save_inputs();
        saved.save(mean);
        saved.save(rstd);
        vec![y]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None; saved.num_inputs()] };
        let x = saved.input(0);
        let weight = self.weight.then(|| saved.input(1).into_tensor());
        let (mean, rstd) = (saved.tensor(0), saved.tensor(1));
        let (dx, dw, db) = x.tensor().group_norm_backward(self.groups, weight.as_ref(), mean, rstd, g.tensor());
        gradients([dx], [self.weight.then_some(Some(dw)), self.bias.then_some(Some(db))])
    }
    fn composed(&self, inputs: &[Var]) -> Option<Vec<Var>> {
        let (weight, bias) = parameters(inputs, self.weight, self.bias);
        let x = widened(&inputs[0]);
        let (sets, rank) = (x.dims()[0] * self.groups, x.rank());
        let n = x.dims()[1] / self.groups * x.dims()[2..].iter().product::<usize>();
        let rows = x.reshape([sets, n]);
        let centred = &rows - rows.mean_keepdims(1);
        let normal = &centred * (centred.square().mean_keepdims(1) + self.eps).rsqrt();
        let mut y = normal.reshape(x.shape());
        if let Some(w) = weight {
            y = y * column(w, rank);
        }
        if let Some(b) = bias {
            y = y + column(b, rank);
        }
        Some(vec![y.to_dtype(inputs[0].dtype())])
    }
}

impl Var {
    /// Each group of `C/groups` neighbouring channels of `[B, C, …]` normalised by its own mean and variance, then scaled by
    /// `weight` and shifted by `bias` `[C]`; see [`Tensor::group_norm`]. f32 under autocast.
    #[track_caller]
    pub fn group_norm(&self, groups: usize, weight: Option<&Var>, bias: Option<&Var>, eps: f64) -> Var {
        let operands = Operands::new(self, weight, bias);
        let Operands { weight, bias, .. } = operands;
        GroupNorm { groups, eps, weight, bias }.apply1(&operands.refs())
    }
}
