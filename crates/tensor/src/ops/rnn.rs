//! The simple recurrent network over a sequence (Elman 1990).

use super::recurrence::{
    RecurrentWeights, SequenceGradients, SequenceOptions, check, check_gradients, input_gates, recurrent_product, run,
    sum_of,
};
use crate::Tensor;

const OP: &str = "rnn";

/// The activation of a simple recurrent network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RnnNonlinearity {
    /// `tanh x`.
    #[default]
    Tanh,
    /// `max(x, 0)`.
    Relu,
}

/// What [`rnn`] computes; its backward pass needs nothing else.
#[derive(Clone)]
pub struct RnnOutput {
    /// The outputs `[T, B, H]`.
    pub hs: Tensor,
    /// The final state `[B, H]`.
    pub h_n: Tensor,
}

/// What [`rnn_backward`] returns.
pub struct RnnGradients {
    /// Of `W_ih x + b_ih + b_hh`, `[T, B, H]`: the input's and its weights' gradients are products with it, the biases'
    /// is its sum.
    pub gates: Tensor,
    /// Of the first state `[B, H]`.
    pub h0: Tensor,
    /// Of the recurrent weights `[H, H]`.
    pub w_hh: Tensor,
}

/// One layer and direction of a simple recurrent network: `hₜ = act(W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh)`.
///
/// `x` is `[T, B, I]`, `h0` is `[B, H]`. All have one float dtype; half types keep their states in f32.
///
/// # Panics
/// If shapes or dtypes do not fit, or a length exceeds `T`.
#[track_caller]
pub fn rnn(
    x: &Tensor,
    weights: &RecurrentWeights<Tensor>,
    h0: &Tensor,
    nonlinearity: RnnNonlinearity,
    options: &SequenceOptions,
) -> RnnOutput {
    let options = check(OP, 1, x, weights, &[("h0", h0)], options);
    let bias = sum_of(weights.b_ih, weights.b_hh);
    let mut gx = input_gates(x, weights.w_ih, bias.as_ref());
    x.device().backend().rnn(&mut gx, weights.w_hh, h0, nonlinearity, &options).unwrap_or_else(|| {
        let wide = x.dtype().accumulator();
        let [gx, w_hh, h0] = [&gx, weights.w_hh, h0].map(|x| x.to_dtype(wide));
        let (hs, [h_n], []) = run(gx.dim(0), &options, [h0], [], |t, [state]| {
            let a = gx.select(0, t as isize).add(&recurrent_product(state, &w_hh, &options));
            let y = match nonlinearity {
                RnnNonlinearity::Tanh => a.tanh(),
                RnnNonlinearity::Relu => a.relu(),
            };
            ([y], [])
        });
        RnnOutput { hs: hs.to_dtype(x.dtype()), h_n: h_n.to_dtype(x.dtype()) }
    })
}

/// The gradients of [`rnn`] with respect to its recurrent part, from what it was given and its outputs `hs`, if the
/// backend has a fused kernel for them.
#[track_caller]
pub fn rnn_backward(
    w_hh: &Tensor,
    h0: &Tensor,
    nonlinearity: RnnNonlinearity,
    options: &SequenceOptions,
    hs: &Tensor,
    gradients: &SequenceGradients,
) -> Option<RnnGradients> {
    check_gradients(OP, [(gradients.hs, hs), (gradients.h_n, h0)]);
    w_hh.device().backend().rnn_backward(w_hh, h0, nonlinearity, options, hs, gradients)
}
