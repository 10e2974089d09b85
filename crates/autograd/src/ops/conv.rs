//! Convolutions. A convolution is linear in the image and in the weight, so its gradients are convolutions too: of the
//! three operations here each one's derivative consists of the other two, and any order of derivative is right.

use super::cast::promote;
use crate::{Function, Saved, Var};
use ferrograd_tensor::ops::conv::{self, Conv2dPlan, check_bias};
use ferrograd_tensor::{Conv1dOptions, Conv2dOptions, ConvTranspose2dOptions, Tensor};

/// `y = conv(x, w) + b`: `dx = input_grad(dy, w)`, `dw = weight_grad(x, dy)`, `db = Σ_{n, i, j} dy`.
struct Conv2d(Conv2dPlan);
impl Function for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_input(0);
        saved.save_input(1);
        vec![conv::forward(&self.0, &x[0], &x[1], x.get(2))]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let (x, w, g) = (saved.input(0), saved.input(1), g[0].as_ref().unwrap());
        let dx = saved.needs_grad(0).then(|| Conv2dInputGrad(self.0).apply1(&[g, &w]));
        let dw = saved.needs_grad(1).then(|| Conv2dWeightGrad(self.0).apply1(&[&x, g]));
        if saved.num_inputs() == 2 {
            return vec![dx, dw];
        }
        vec![dx, dw, saved.needs_grad(2).then(|| g.sum_dims([0, 2, 3]))]
    }
}

/// `dx = input_grad(dy, w)`, the adjoint of the convolution in `x`, and what a transposed convolution is.
struct Conv2dInputGrad(Conv2dPlan);
impl Function for Conv2dInputGrad {
    fn name(&self) -> &'static str {
        "conv2d_input_grad"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        vec![conv::input_grad(&self.0, &x[0], &x[1])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let (dy, w, g) = (saved.input(0), saved.input(1), g[0].as_ref().unwrap());
        let ddy = saved.needs_grad(0).then(|| Conv2d(self.0).apply1(&[g, &w]));
        let dw = saved.needs_grad(1).then(|| Conv2dWeightGrad(self.0).apply1(&[g, &dy]));
        vec![ddy, dw]
    }
}

/// `dw = weight_grad(x, dy)`, the adjoint of the convolution in `w`.
struct Conv2dWeightGrad(Conv2dPlan);
impl Function for Conv2dWeightGrad {
    fn name(&self) -> &'static str {
        "conv2d_weight_grad"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        vec![conv::weight_grad(&self.0, &x[0], &x[1])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let (x, dy, g) = (saved.input(0), saved.input(1), g[0].as_ref().unwrap());
        let dx = saved.needs_grad(0).then(|| Conv2dInputGrad(self.0).apply1(&[&dy, g]));
        let ddy = saved.needs_grad(1).then(|| Conv2d(self.0).apply1(&[&x, g]));
        vec![dx, ddy]
    }
}

/// The convolution in the autocast dtype, operands seen as the plan sees them.
#[track_caller]
fn conv(op: &'static str, plan: Conv2dPlan, [x, w]: [&Var; 2], bias: Option<&Var>) -> Var {
    let [x, w] = promote(op, [&x.lowered(), &w.lowered()]);
    let (x, w) = (x.reshape(plan.input_shape()), w.reshape(plan.weight_shape()));
    let Some(bias) = bias else { return Conv2d(plan).apply1(&[&x, &w]) };
    check_bias(op, bias.shape(), plan.geometry.o);
    let bias = bias.lowered();
    // A bias of a wider type widens the result, not the convolution.
    match x.dtype().promote(bias.dtype()) == x.dtype() {
        true => Conv2d(plan).apply1(&[&x, &w, &bias.to_dtype(x.dtype())]),
        false => add_bias(op, Conv2d(plan).apply1(&[&x, &w]), Some(&bias)),
    }
}

/// `y + bias`, one number per channel.
#[track_caller]
fn add_bias(op: &'static str, y: Var, bias: Option<&Var>) -> Var {
    let Some(bias) = bias else { return y };
    check_bias(op, bias.shape(), y.dims()[1]);
    y + bias.lowered().reshape([bias.numel(), 1, 1])
}

impl Var {
    /// One-dimensional convolution of `[N, C, L]` with `weight [O, C/groups, k]`, see [`Tensor::conv1d`]. Computes in the
    /// autocast dtype.
    #[track_caller]
    pub fn conv1d(&self, weight: &Var, bias: Option<&Var>, options: &Conv1dOptions) -> Var {
        const OP: &str = "conv1d";
        let plan = Conv2dPlan::conv1d(self.shape(), weight.shape(), options);
        let y = conv(OP, plan, [self, weight], bias);
        let [n, o, _, l] = y.dims_of(OP);
        y.reshape([n, o, l])
    }
    /// `y[n, o, i, j] = bias[o] + Σ_{c, a, b} weight[o, c, a, b] · x[n, c', i·s + a·d − p, j·s + b·d − p]`: `[N, C, H, W]`
    /// with `weight [O, C/groups, kh, kw]`, see [`Tensor::conv2d`]. Computes in the autocast dtype.
    #[track_caller]
    pub fn conv2d(&self, weight: &Var, bias: Option<&Var>, options: &Conv2dOptions) -> Var {
        conv("conv2d", Conv2dPlan::conv2d(self.shape(), weight.shape(), options), [self, weight], bias)
    }
    /// Transposed two-dimensional convolution of `[N, C, H, W]` with `weight [C, O/groups, kh, kw]`, see
    /// [`Tensor::conv_transpose2d`]. Computes in the autocast dtype.
    #[track_caller]
    pub fn conv_transpose2d(&self, weight: &Var, bias: Option<&Var>, options: &ConvTranspose2dOptions) -> Var {
        const OP: &str = "conv_transpose2d";
        let plan = Conv2dPlan::conv_transpose2d(self.shape(), weight.shape(), options);
        let [x, w] = promote(OP, [&self.lowered(), &weight.lowered()]);
        add_bias(OP, Conv2dInputGrad(plan).apply1(&[&x, &w]), bias)
    }
}
