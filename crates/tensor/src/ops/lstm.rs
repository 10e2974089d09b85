//! The long short-term memory over a sequence (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

use super::recurrence::{
    RecurrentWeights, SequenceArgs, SequenceGradients, SequenceOptions, check, check_gradients, input_gates,
    recurrent_product, run, sum_of,
};
use crate::Tensor;

const OP: &str = "lstm";

/// What [`lstm`] computes, and what its backward pass needs.
#[derive(Clone)]
pub struct LstmOutput {
    /// The outputs `[T, B, H]`.
    pub hs: Tensor,
    /// The final state `[B, H]`.
    pub h_n: Tensor,
    /// The final cell `[B, H]`.
    pub c_n: Tensor,
    /// The activated gates `i f g o` `[T, B, 4H]`, in the accumulator dtype; unspecified at steps that a row does
    /// not have.
    pub gates: Tensor,
    /// The cells `[T, B, H]`, in the accumulator dtype.
    pub cells: Tensor,
}

/// What [`lstm_backward`] returns.
pub struct LstmGradients {
    /// Of the inputs `[T, B, E]`, if they were asked for.
    pub x: Option<Tensor>,
    /// Of the first state `[B, H]`.
    pub h0: Tensor,
    /// Of the first cell `[B, H]`.
    pub c0: Tensor,
    /// Of the recurrent weights `[4H, H]`.
    pub w_hh: Tensor,
    /// Of the input's weights `[4H, E]`.
    pub w_ih: Tensor,
    /// Of either bias `[4H]`.
    pub bias: Tensor,
}

/// One layer and direction of a long short-term memory, PyTorch's equations and order of gates:
///
/// ```text
/// [i f g o] = [σ σ tanh σ](W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh)     cₜ = f ∘ cₜ₋₁ + i ∘ g     hₜ = o ∘ tanh(cₜ)
/// ```
///
/// `x` is `[T, B, I]`, `h0` and `c0` are `[B, H]`. All have one float dtype; half types keep their states in f32.
///
/// # Panics
/// If shapes or dtypes do not fit, or a length exceeds `T`.
#[track_caller]
pub fn lstm(
    x: &Tensor,
    weights: &RecurrentWeights<Tensor>,
    h0: &Tensor,
    c0: &Tensor,
    options: &SequenceOptions,
) -> LstmOutput {
    let options = check(OP, 4, x, weights, &[("h0", h0), ("c0", c0)], options);
    let args = SequenceArgs { x, weights, h0, options: &options };
    x.device().backend().lstm(&args, c0).unwrap_or_else(|| {
        let wide = x.dtype().accumulator();
        let [b_ih, b_hh] = [weights.b_ih, weights.b_hh].map(|b| b.map(|b| b.to_dtype(wide)));
        let bias = sum_of(b_ih.as_ref(), b_hh.as_ref());
        let [x_wide, w_ih, w_hh, h0, c0] = [x, weights.w_ih, weights.w_hh, h0, c0].map(|x| x.to_dtype(wide));
        let out = steps(&input_gates(&x_wide, &w_ih, bias.as_ref()), &w_hh, h0, c0, &options);
        let [hs, h_n, c_n] = [out.hs, out.h_n, out.c_n].map(|y| y.to_dtype(x.dtype()));
        LstmOutput { hs, h_n, c_n, ..out }
    })
}

/// Step by step, in one dtype.
fn steps(gx: &Tensor, w_hh: &Tensor, h0: Tensor, c0: Tensor, options: &SequenceOptions) -> LstmOutput {
    let h = h0.dim(1);
    let (hs, [h_n, c_n], [gates, cells]) = run(gx.dim(0), options, [h0, c0], [4 * h, h], |t, [state, cell]| {
        let a = gx.select(0, t as isize).add(&recurrent_product(state, w_hh, options));
        let gate = |n: usize| a.narrow(1, n * h, h);
        let [i, f, g, o] = [gate(0).sigmoid(), gate(1).sigmoid(), gate(2).tanh(), gate(3).sigmoid()];
        let c = f.mul(cell).add(&i.mul(&g));
        let y = o.mul(&c.tanh());
        ([y, c.clone()], [Tensor::cat(&[&i, &f, &g, &o], 1), c])
    });
    LstmOutput { hs, h_n, c_n, gates, cells }
}

/// The gradients of [`lstm`], from what it was given and what it returned, if the backend has a fused kernel for them.
#[track_caller]
pub fn lstm_backward(
    args: &SequenceArgs,
    c0: &Tensor,
    saved: &LstmOutput,
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> Option<LstmGradients> {
    check_gradients(OP, [(gradients.hs, &saved.hs), (gradients.h_n, &saved.h_n), (gradients.c_n, &saved.c_n)]);
    args.x.device().backend().lstm_backward(args, c0, saved, gradients, input_gradient)
}
