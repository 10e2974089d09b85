//! The gated recurrent unit over a sequence: one fused kernel for all of time, backward included.

use super::composition::backward_of_composed;
use super::recurrence::{Inputs, input_gates, recurrent_product, run, unify};
use crate::{Function, Saved, Var, autocast};
use ferrograd_tensor::ops::gru::{GruOutput, gru as forward, gru_backward};
use ferrograd_tensor::ops::recurrence::{RecurrentWeights, SequenceArgs, SequenceGradients, SequenceOptions};
use ferrograd_tensor::{DType, Tensor};

/// `[3H, I]`, `[3H, H]` and the biases `[3H]`, gates in the order `r z n`.
pub type GruWeights<'a> = RecurrentWeights<'a, Var>;

/// Inputs `x, w_ih, w_hh, h0, b_ih?, b_hh?`; outputs `hs, h_n`.
struct Gru {
    inputs: Inputs,
    options: SequenceOptions,
}

impl Function for Gru {
    fn name(&self) -> &'static str {
        "gru"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let GruOutput { hs, h_n, gates } = forward(&x[0], &self.inputs.weights(x), &x[3], &self.options);
        saved.save_inputs();
        (0..2).for_each(|i| saved.save_output(i));
        saved.save(gates);
        vec![hs, h_n]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let [hs, h_n] = [0, 1].map(|i| saved.output(i).into_tensor());
        let inputs: Vec<Tensor> = (0..self.inputs.count()).map(|i| saved.input(i).into_tensor()).collect();
        let weights = self.inputs.weights(&inputs);
        let args = SequenceArgs { x: &inputs[0], weights: &weights, h0: &inputs[3], options: &self.options };
        let results = GruOutput { hs, h_n, gates: saved.tensor(0).clone() };
        let [d_hs, d_hn] = [0, 1].map(|i| g[i].as_ref().map(Var::tensor));
        let upstream = SequenceGradients { hs: d_hs, h_n: d_hn, c_n: None };
        let Some(found) = gru_backward(&args, &results, &upstream, saved.needs_grad(0)) else {
            return backward_of_composed(self, saved, g);
        };
        let mut gradients = vec![found.x, Some(found.w_ih), Some(found.w_hh), Some(found.h0)];
        gradients.extend(self.inputs.b_ih.then_some(Some(found.b_ih)));
        gradients.extend(self.inputs.b_hh.then_some(Some(found.b_hh)));
        gradients.into_iter().map(|g| g.map(Var::constant)).collect()
    }
    fn composed(&self, x: &[Var]) -> Option<Vec<Var>> {
        let (dtype, h) = (x[0].dtype(), x[3].dim(1));
        let x: Vec<Var> = x.iter().map(|x| x.to_dtype(dtype.accumulator())).collect();
        let weights = self.inputs.weights(&x);
        let (hs, [h_n]) = autocast(DType::F32, || {
            let gx = input_gates(&x[0], weights.w_ih, weights.b_ih.cloned());
            run(&gx, &self.options, [x[3].clone()], |gx, [state]| {
                let mut y = recurrent_product(state, weights.w_hh, &self.options);
                if let Some(b) = weights.b_hh {
                    y = y + b;
                }
                let part = |a: &Var, n: usize| a.narrow(1, n * h, h);
                let [r, z] = [0, 1].map(|n| (part(&gx, n) + part(&y, n)).sigmoid());
                let n = (part(&gx, 2) + r * part(&y, 2)).tanh();
                [(1.0 - &z) * n + z * state]
            })
        });
        Some([hs, h_n].map(|y| y.to_dtype(dtype)).into())
    }
}

/// One layer and direction of a gated recurrent unit (Cho et al. 2014), PyTorch's equations, in which the reset gate
/// applies after the recurrent product:
///
/// ```text
/// [r z] = σ(W_i[rz] xₜ + b_i[rz] + W_h[rz] hₜ₋₁ + b_h[rz])
/// n = tanh(W_in xₜ + b_in + r ∘ (W_hn hₜ₋₁ + b_hn))        hₜ = (1 − z) ∘ n + z ∘ hₜ₋₁
/// ```
///
/// `x` is `[T, B, I]`, `h0` is `[B, H]`. Returns the outputs `[T, B, H]` and the final state `[B, H]`. dtypes are promoted;
/// computes in the autocast dtype, with states in f32.
///
/// # Panics
/// If shapes do not fit, or a length exceeds `T`.
#[track_caller]
pub fn gru(x: &Var, weights: &GruWeights, h0: &Var, options: &SequenceOptions) -> (Var, Var) {
    let (inputs, all) = unify(x, weights, &[h0]);
    let outputs = Gru { inputs, options: options.clone() }.apply(&all.iter().collect::<Vec<_>>());
    let Ok([hs, h_n]) = <[Var; 2]>::try_from(outputs) else { unreachable!("a GRU has two outputs") };
    (hs, h_n)
}
