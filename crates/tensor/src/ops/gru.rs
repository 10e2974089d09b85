//! The gated recurrent unit over a sequence (Cho et al. 2014).

use super::recurrence::{
    RecurrentWeights, SequenceGradients, SequenceOptions, check, check_gradients, input_gates, recurrent_product, run,
    sum_of,
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
    /// The activated gates `r z n` `[T, B, 3H]`, in the accumulator dtype; unspecified at steps that a row does
    /// not have.
    pub gates: Tensor,
    /// `W_hn hₜ₋₁ + b_hn`, `[T, B, H]`, in the accumulator dtype.
    pub hn: Tensor,
}

/// What [`gru_backward`] returns.
pub struct GruGradients {
    /// Of the input's part of the gates `[T, B, 3H]`: the input's and its weights' gradients are products with it, that of
    /// `b_ih` and of the `r` and `z` parts of `b_hh` its sum.
    pub gates: Tensor,
    /// Of the first state `[B, H]`.
    pub h0: Tensor,
    /// Of the recurrent weights `[3H, H]`.
    pub w_hh: Tensor,
    /// Of the `n` part of `b_hh`, `[H]`.
    pub b_hn: Tensor,
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
    let h = h0.dim(1);
    // The r and z parts of b_hh can join the input's; n's stays inside the reset gate's product.
    let early = weights.b_hh.map(|b| {
        let rz = b.narrow(0, 0, 2 * h);
        Tensor::cat(&[&rz, &Tensor::full_on([h], 0.0, b.dtype(), &b.device())], 0)
    });
    let b_hn = weights.b_hh.map(|b| b.narrow(0, 2 * h, h));
    let mut gx = input_gates(x, weights.w_ih, sum_of(weights.b_ih, early.as_ref()).as_ref());
    x.device().backend().gru(&mut gx, weights.w_hh, b_hn.as_ref(), h0, &options).unwrap_or_else(|| {
        let wide = x.dtype().accumulator();
        let [gx, w_hh, h0] = [&gx, weights.w_hh, h0].map(|x| x.to_dtype(wide));
        let out = steps(&gx, &w_hh, b_hn.map(|b| b.to_dtype(wide)).as_ref(), h0, &options);
        let [hs, h_n] = [out.hs, out.h_n].map(|y| y.to_dtype(x.dtype()));
        GruOutput { hs, h_n, ..out }
    })
}

/// Step by step, in one dtype.
fn steps(gx: &Tensor, w_hh: &Tensor, b_hn: Option<&Tensor>, h0: Tensor, options: &SequenceOptions) -> GruOutput {
    let h = h0.dim(1);
    let (hs, [h_n], [gates, hn]) = run(gx.dim(0), options, [h0], [3 * h, h], |t, [state]| {
        let (x, y) = (gx.select(0, t as isize), recurrent_product(state, w_hh, options));
        let part = |a: &Tensor, n: usize| a.narrow(1, n * h, h);
        let [r, z] = [0, 1].map(|n| part(&x, n).add(&part(&y, n)).sigmoid());
        let mut hn = part(&y, 2);
        if let Some(b) = b_hn {
            hn = hn.add(b);
        }
        let n = part(&x, 2).add(&r.mul(&hn)).tanh();
        let new = z.rsub_scalar(1.0).mul(&n).add(&z.mul(state));
        ([new], [Tensor::cat(&[&r, &z, &n], 1), hn])
    });
    GruOutput { hs, h_n, gates, hn }
}

/// The gradients of [`gru`] with respect to its recurrent part, from what it was given and what it returned, if the
/// backend has a fused kernel for them.
#[track_caller]
pub fn gru_backward(
    w_hh: &Tensor,
    h0: &Tensor,
    options: &SequenceOptions,
    saved: &GruOutput,
    gradients: &SequenceGradients,
) -> Option<GruGradients> {
    check_gradients(OP, [(gradients.hs, &saved.hs), (gradients.h_n, &saved.h_n)]);
    w_hh.device().backend().gru_backward(w_hh, h0, options, saved, gradients)
}
