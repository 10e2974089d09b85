//! The simple recurrent network over a sequence: one fused kernel for all of time, backward included.

use super::composition::backward_of_composed;
use super::recurrence::{Inputs, input_gates, recurrent_product, run, sum_of, unify};
use crate::{Function, Saved, Var, autocast};
use ferrograd_tensor::ops::recurrence::{RecurrentWeights, SequenceArgs, SequenceGradients, SequenceOptions};
use ferrograd_tensor::ops::rnn::{RnnNonlinearity, RnnOutput, rnn as forward, rnn_backward};
use ferrograd_tensor::{DType, Tensor};

/// `[H, I]`, `[H, H]` and the biases `[H]`.
pub type RnnWeights<'a> = RecurrentWeights<'a, Var>;

/// Inputs `x, w_ih, w_hh, h0, b_ih?, b_hh?`; outputs `hs, h_n`.
struct Rnn {
    inputs: Inputs,
    nonlinearity: RnnNonlinearity,
    options: SequenceOptions,
}

impl Function for Rnn {
    fn name(&self) -> &'static str {
        "rnn"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let weights = self.inputs.weights(x);
        let RnnOutput { hs, h_n } = forward(&x[0], &weights, &x[3], self.nonlinearity, &self.options);
        saved.save_inputs();
        saved.save_output(0);
        vec![hs, h_n]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let inputs: Vec<Tensor> = (0..self.inputs.count()).map(|i| saved.input(i).into_tensor()).collect();
        let weights = self.inputs.weights(&inputs);
        let args = SequenceArgs { x: &inputs[0], weights: &weights, h0: &inputs[3], options: &self.options };
        let hs = saved.output(0);
        let [d_hs, d_hn] = [0, 1].map(|i| g[i].as_ref().map(Var::tensor));
        let upstream = SequenceGradients { hs: d_hs, h_n: d_hn, c_n: None };
        let found = rnn_backward(&args, self.nonlinearity, hs.tensor(), &upstream, saved.needs_grad(0));
        let Some(found) = found else {
            return backward_of_composed(self, saved, g);
        };
        let mut gradients = vec![found.x, Some(found.w_ih), Some(found.w_hh), Some(found.h0)];
        gradients.resize(self.inputs.count(), Some(found.bias));
        gradients.into_iter().map(|g| g.map(Var::constant)).collect()
    }
    fn composed(&self, x: &[Var]) -> Option<Vec<Var>> {
        let dtype = x[0].dtype();
        let x: Vec<Var> = x.iter().map(|x| x.to_dtype(dtype.accumulator())).collect();
        let weights = self.inputs.weights(&x);
        let (hs, [h_n]) = autocast(DType::F32, || {
            let gx = input_gates(&x[0], weights.w_ih, sum_of(weights.b_ih, weights.b_hh));
            run(&gx, &self.options, [x[3].clone()], |gx, [state]| {
                let a = gx + recurrent_product(state, weights.w_hh, &self.options);
                match self.nonlinearity {
                    RnnNonlinearity::Tanh => [a.tanh()],
                    RnnNonlinearity::Relu => [a.relu()],
                }
            })
        });
        Some([hs, h_n].map(|y| y.to_dtype(dtype)).into())
    }
}

/// One layer and direction of a simple recurrent network (Elman 1990): `hₜ = act(W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh)`.
///
/// `x` is `[T, B, I]`, `h0` is `[B, H]`. Returns the outputs `[T, B, H]` and the final state `[B, H]`. dtypes are promoted;
/// computes in the autocast dtype, with states in f32.
///
/// # Panics
/// If shapes do not fit, or a length exceeds `T`.
#[track_caller]
pub fn rnn(
    x: &Var,
    weights: &RnnWeights,
    h0: &Var,
    nonlinearity: RnnNonlinearity,
    options: &SequenceOptions,
) -> (Var, Var) {
    let (inputs, all) = unify(x, weights, &[h0]);
    let outputs = Rnn { inputs, nonlinearity, options: options.clone() }.apply(&all.iter().collect::<Vec<_>>());
    let Ok([hs, h_n]) = <[Var; 2]>::try_from(outputs) else { unreachable!("an RNN has two outputs") };
    (hs, h_n)
}
