//! Gated activations.

use super::softmax::widened;
use crate::tensor::same_device;
use crate::{Activation, Tensor, ensure};

impl Tensor {
    /// `y = f(gate) · up` elementwise, this tensor being the gate: what a transformer's network has between its projections. Both
    /// have one shape; they may be halves of one product, whose strides are taken as they are. dtypes are promoted; half
    /// types compute in f32 and are rounded once.
    ///
    /// The sigmoid's is called GLU (Y. Dauphin et al. 2017); of N. Shazeer 2020, arXiv:2002.05202, are ReGLU, GEGLU, whose tanh
    /// approximation is in Gemma and T5, and silu's SwiGLU, in Llama and most since.
    ///
    /// # Panics
    /// With a DType error unless both are floats, with a Shape error if their shapes differ.
    ///
    /// ```
    /// use ferrograd_tensor::{Activation, Tensor};
    /// let both = Tensor::new([[-1.0f32, 2.0, 5.0, 7.0]]); // gate and up, side by side
    /// let halves = both.chunk(2, -1);
    /// assert_eq!(halves[0].gated(&halves[1], Activation::Relu).to_vec::<f32>(), [0.0, 14.0]);
    /// ```
    #[track_caller]
    pub fn gated(&self, up: &Tensor, activation: Activation) -> Tensor {
        let [gate, up] = operands("gated", self, up);
        let fused = gate.device().backend().gated(&gate, &up, activation);
        fused.unwrap_or_else(|| composed(&gate, &up, activation))
    }
    /// The gradients `(∂L/∂gate, ∂L/∂up) = (g·up·f'(gate), g·f(gate))` of [`gated`](Tensor::gated), from `g = ∂L/∂y`. All of one
    /// shape and dtype.
    #[track_caller]
    pub fn gated_backward(&self, up: &Tensor, activation: Activation, g: &Tensor) -> (Tensor, Tensor) {
        const OP: &str = "gated_backward";
        let [gate, up] = operands(OP, self, up);
        super::softmax::check_gradient(OP, &gate, g);
        let fused = gate.device().backend().gated_backward(&gate, &up, activation, g);
        fused.unwrap_or_else(|| composed_backward(&gate, &up, activation, g))
    }
}

/// Both in one dtype.
#[track_caller]
fn operands(op: &'static str, gate: &Tensor, up: &Tensor) -> [Tensor; 2] {
    same_device(op, &[gate, up]);
    let (a, b) = (gate.dtype(), up.dtype());
    ensure!(a.is_float() && b.is_float(), DType, op, "needs float tensors, got {a} and {b} (cast with to_dtype)");
    ensure!(gate.shape() == up.shape(), Shape, op, "gate {} and up {} differ", gate.shape(), up.shape());
    [gate, up].map(|x| x.to_dtype(a.promote(b)))
}

/// [`Tensor::gated`] in elementwise operations: what a backend without the fused kernel runs.
pub fn composed(gate: &Tensor, up: &Tensor, activation: Activation) -> Tensor {
    (widened(gate).activate(activation) * widened(up)).to_dtype(gate.dtype())
}

/// [`Tensor::gated_backward`], likewise.
pub fn composed_backward(gate: &Tensor, up: &Tensor, activation: Activation, g: &Tensor) -> (Tensor, Tensor) {
    let [x, up, g] = [gate, up, g].map(widened);
    let dgate = x.activate_backward(activation, &(&g * up));
    (dgate.to_dtype(gate.dtype()), (g * x.activate(activation)).to_dtype(gate.dtype()))
}
