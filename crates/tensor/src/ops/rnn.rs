//! The simple recurrent network over a sequence (Elman 1990).

use super::recurrence::{
    RecurrentWeights, SequenceArgs, SequenceGradients, SequenceOptions, check, check_gradients, input_gates,
    recurrent_product, run, sum_of,
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
    /// Of the inputs `[T, B, E]`, if they were asked for.
    pub x: Option<Tensor>,
    /// Of the first state `[B, H]`.
    pub h0: Tensor,
    /// Of the recurrent weights `[H, H]`.
    pub w_hh: Tensor,
    /// Of the input's weights `[H, E]`.
    pub w_ih: Tensor,
    /// Of either bias `[H]`.
    pub bias: Tensor,
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
    let args = SequenceArgs { x, weights, h0, options: &options };
    x.device().backend().rnn(&args, nonlinearity).unwrap_or_else(|| {
        let wide = x.dtype().accumulator();
        let [x_wide, w_ih, w_hh, h0] = [x, weights.w_ih, weights.w_hh, h0].map(|x| x.to_dtype(wide));
        let [b_ih, b_hh] = [weights.b_ih, weights.b_hh].map(|b| b.map(|b| b.to_dtype(wide)));
        let gx = input_gates(&x_wide, &w_ih, sum_of(b_ih.as_ref(), b_hh.as_ref()).as_ref());
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

/// The gradients of [`rnn`], from what it was given and its outputs `hs`, if the backend has a fused kernel for them.
#[track_caller]
pub fn rnn_backward(
    args: &SequenceArgs,
    nonlinearity: RnnNonlinearity,
    hs: &Tensor,
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> Option<RnnGradients> {
    check_gradients(OP, [(gradients.hs, hs), (gradients.h_n, args.h0)]);
    args.x.device().backend().rnn_backward(args, nonlinearity, hs, gradients, input_gradient)
}
