//! The gated recurrent unit over a sequence (Cho et al. 2014).

use super::recurrence::{
    RecurrentWeights, SequenceArgs, SequenceGradients, SequenceOptions, check, check_gradients, input_gates,
    recurrent_product, run,
};
use crate::Tensor;

const OP: &str = "gru";

/// What [`gru`] computes, and what its backward pass needs.
#[derive(Clone)]
pub struct GruOutput {
    /// The outputs `[T, B, H]`.
    pub hs: Tensor,
    /// The final state `[B, H]`.
    pub h_n: Tensor,
    /// The activated gates `r z n`, and `W_hn hₜ₋₁ + b_hn`: `[T, B, 4H]`, in the accumulator dtype; unspecified at steps
    /// that a row does not have.
    pub gates: Tensor,
}

/// What [`gru_backward`] returns.
pub struct GruGradients {
    /// Of the inputs `[T, B, E]`, if they were asked for.
    pub x: Option<Tensor>,
    /// Of the first state `[B, H]`.
    pub h0: Tensor,
    /// Of the recurrent weights `[3H, H]`.
    pub w_hh: Tensor,
    /// Of the input's weights `[3H, E]`.
    pub w_ih: Tensor,
    /// Of `b_ih` `[3H]`.
    pub b_ih: Tensor,
    /// Of `b_hh` `[3H]`.
    pub b_hh: Tensor,
}

/// One layer and direction of a gated recurrent unit, PyTorch's equations and order of gates, in which the reset gate
/// applies after the recurrent product:
///
/// ```text
/// [r z] = σ(W_i[rz] xₜ + b_i[rz] + W_h[rz] hₜ₋₁ + b_h[rz])
/// n = tanh(W_in xₜ + b_in + r ∘ (W_hn hₜ₋₁ + b_hn))        hₜ = (1 − z) ∘ n + z ∘ hₜ₋₁
/// ```
///
/// `x` is `[T, B, I]`, `h0` is `[B, H]`. All have one float dtype; half types keep their states in f32. A recurrent mask
/// applies to the recurrent products and not to `z ∘ hₜ₋₁`, as in Keras.
///
/// # Panics
/// If shapes or dtypes do not fit, or a length exceeds `T`.
#[track_caller]
pub fn gru(x: &Tensor, weights: &RecurrentWeights<Tensor>, h0: &Tensor, options: &SequenceOptions) -> GruOutput {
    let options = check(OP, 3, x, weights, &[("h0", h0)], options);
    x.device().backend().gru(&SequenceArgs { x, weights, h0, options: &options }).unwrap_or_else(|| {
        let wide = x.dtype().accumulator();
        let [x_wide, w_ih, w_hh, h0] = [x, weights.w_ih, weights.w_hh, h0].map(|x| x.to_dtype(wide));
        let [b_ih, b_hh] = [weights.b_ih, weights.b_hh].map(|b| b.map(|b| b.to_dtype(wide)));
        let out = steps(&input_gates(&x_wide, &w_ih, b_ih.as_ref()), &w_hh, b_hh.as_ref(), h0, &options);
        let [hs, h_n] = [out.hs, out.h_n].map(|y| y.to_dtype(x.dtype()));
        GruOutput { hs, h_n, ..out }
    })
}

/// Step by step, in one dtype.
fn steps(gx: &Tensor, w_hh: &Tensor, b_hh: Option<&Tensor>, h0: Tensor, options: &SequenceOptions) -> GruOutput {
    let h = h0.dim(1);
    let (hs, [h_n], [gates]) = run(gx.dim(0), options, [h0], [4 * h], |t, [state]| {
        let (x, mut y) = (gx.select(0, t as isize), recurrent_product(state, w_hh, options));
        if let Some(b) = b_hh {
            y = y.add(b);
        }
        let part = |a: &Tensor, n: usize| a.narrow(1, n * h, h);
        let [r, z] = [0, 1].map(|n| part(&x, n).add(&part(&y, n)).sigmoid());
        let hn = part(&y, 2);
        let n = part(&x, 2).add(&r.mul(&hn)).tanh();
        let new = z.rsub_scalar(1.0).mul(&n).add(&z.mul(state));
        ([new], [Tensor::cat(&[&r, &z, &n, &hn], 1)])
    });
    GruOutput { hs, h_n, gates }
}

/// The gradients of [`gru`], from what it was given and what it returned, if the backend has a fused kernel for them.
#[track_caller]
pub fn gru_backward(
    args: &SequenceArgs,
    saved: &GruOutput,
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> Option<GruGradients> {
    check_gradients(OP, [(gradients.hs, &saved.hs), (gradients.h_n, &saved.h_n)]);
    args.x.device().backend().gru_backward(args, saved, gradients, input_gradient)
}
