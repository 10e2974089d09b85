//! The long short-term memory over a sequence: one fused kernel for all of time, backward included.

use super::composition::backward_of_composed;
use super::recurrence::{Inputs, input_gates, recurrent_product, run, sum_of, unify};
use crate::{Function, Saved, Var, autocast};
use ferrograd_tensor::ops::lstm::{LstmOutput, lstm as forward, lstm_backward};
use ferrograd_tensor::ops::recurrence::{RecurrentWeights, SequenceArgs, SequenceGradients, SequenceOptions};
use ferrograd_tensor::{DType, Tensor};

/// `[4H, I]`, `[4H, H]` and the biases `[4H]`, gates in the order `i f g o`.
pub type LstmWeights<'a> = RecurrentWeights<'a, Var>;

/// Inputs `x, w_ih, w_hh, h0, c0, b_ih?, b_hh?`; outputs `hs, h_n, c_n`.
struct Lstm {
    inputs: Inputs,
    options: SequenceOptions,
}

impl Function for Lstm {
    fn name(&self) -> &'static str {
        "lstm"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let LstmOutput { hs, h_n, c_n, gates, cells } =
            forward(&x[0], &self.inputs.weights(x), &x[3], &x[4], &self.options);
        saved.save_inputs();
        (0..3).for_each(|i| saved.save_output(i));
        saved.save(gates);
        saved.save(cells);
        vec![hs, h_n, c_n]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let [hs, h_n, c_n] = [0, 1, 2].map(|i| saved.output(i).into_tensor());
        let inputs: Vec<Tensor> = (0..self.inputs.count()).map(|i| saved.input(i).into_tensor()).collect();
        let weights = self.inputs.weights(&inputs);
        let args = SequenceArgs { x: &inputs[0], weights: &weights, h0: &inputs[3], options: &self.options };
        let results = LstmOutput { hs, h_n, c_n, gates: saved.tensor(0).clone(), cells: saved.tensor(1).clone() };
        let [d_hs, d_hn, d_cn] = [0, 1, 2].map(|i| g[i].as_ref().map(Var::tensor));
        let upstream = SequenceGradients { hs: d_hs, h_n: d_hn, c_n: d_cn };
        let Some(found) = lstm_backward(&args, &inputs[4], &results, &upstream, saved.needs_grad(0)) else {
            return backward_of_composed(self, saved, g);
        };
        let mut gradients = vec![found.x, Some(found.w_ih), Some(found.w_hh), Some(found.h0), Some(found.c0)];
        gradients.resize(self.inputs.count(), Some(found.bias));
        gradients.into_iter().map(|g| g.map(Var::constant)).collect()
    }
    fn composed(&self, x: &[Var]) -> Option<Vec<Var>> {
        let (dtype, h) = (x[0].dtype(), x[3].dim(1));
        let x: Vec<Var> = x.iter().map(|x| x.to_dtype(dtype.accumulator())).collect();
        let weights = self.inputs.weights(&x);
        let (hs, [h_n, c_n]) = autocast(DType::F32, || {
            let gx = input_gates(&x[0], weights.w_ih, sum_of(weights.b_ih, weights.b_hh));
            run(&gx, &self.options, [x[3].clone(), x[4].clone()], |gx, [state, cell]| {
                let a = gx + recurrent_product(state, weights.w_hh, &self.options);
                let gate = |n: usize| a.narrow(1, n * h, h);
                let [i, f, g, o] = [gate(0).sigmoid(), gate(1).sigmoid(), gate(2).tanh(), gate(3).sigmoid()];
                let c = f * cell + i * g;
                [o * c.tanh(), c]
            })
        });
        Some([hs, h_n, c_n].map(|y| y.to_dtype(dtype)).into())
    }
}

/// One layer and direction of a long short-term memory (Hochreiter & Schmidhuber 1997), PyTorch's equations:
///
/// ```text
/// [i f g o] = [σ σ tanh σ](W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh)     cₜ = f ∘ cₜ₋₁ + i ∘ g     hₜ = o ∘ tanh(cₜ)
/// ```
///
/// `x` is `[T, B, I]`, `h0` and `c0` are `[B, H]`. Returns the outputs `[T, B, H]`, the final state and the final cell
/// `[B, H]`. dtypes are promoted; computes in the autocast dtype, with states in f32.
///
/// # Panics
/// If shapes do not fit, or a length exceeds `T`.
#[track_caller]
pub fn lstm(x: &Var, weights: &LstmWeights, h0: &Var, c0: &Var, options: &SequenceOptions) -> (Var, Var, Var) {
    let (inputs, all) = unify(x, weights, &[h0, c0]);
    let outputs = Lstm { inputs, options: options.clone() }.apply(&all.iter().collect::<Vec<_>>());
    let Ok([hs, h_n, c_n]) = <[Var; 3]>::try_from(outputs) else { unreachable!("an LSTM has three outputs") };
    (hs, h_n, c_n)
}
