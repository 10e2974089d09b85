//! Gated activations.

use super::softmax::widened;
use crate::backend::{Binary, Unary};
use crate::tensor::same_device;
use crate::{Tensor, ensure};

/// What a gate is activated by in [`Tensor::gated`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Gate {
    /// The logistic function: GLU (Y. Dauphin et al. 2017).
    Sigmoid,
    /// `max(x, 0)`: ReGLU.
    Relu,
    /// `x Φ(x)`: GEGLU.
    Gelu,
    /// Its approximation by tanh: GEGLU in Gemma and T5.
    GeluTanh,
    /// `x σ(x)`: SwiGLU, in Llama and most since.
    Silu,
}

impl Gate {
    /// Every gate.
    pub const ALL: [Gate; 5] = [Gate::Sigmoid, Gate::Relu, Gate::Gelu, Gate::GeluTanh, Gate::Silu];

    /// The activation.
    pub fn function(self) -> Unary {
        match self {
            Gate::Sigmoid => Unary::Sigmoid,
            Gate::Relu => Unary::Relu,
            Gate::Gelu => Unary::Gelu,
            Gate::GeluTanh => Unary::GeluTanh,
            Gate::Silu => Unary::Silu,
        }
    }
    /// Its derivative times a gradient, `f(x, g)`; [`Gate::Sigmoid`]'s is `f(σ(x), g)`.
    pub fn derivative(self) -> Binary {
        match self {
            Gate::Sigmoid => Binary::SigmoidGrad,
            Gate::Relu => Binary::ReluGrad,
            Gate::Gelu => Binary::GeluGrad,
            Gate::GeluTanh => Binary::GeluTanhGrad,
            Gate::Silu => Binary::SiluGrad,
        }
    }
}

impl Tensor {
    /// `y = f(gate) · up` elementwise, this tensor being the gate: what a transformer's network has between its projections. Both
    /// have one shape; they may be halves of one product, whose strides are taken as they are. dtypes are promoted; half
    /// types compute in f32 and are rounded once.
    ///
    /// N. Shazeer 2020, arXiv:2002.05202.
    ///
    /// # Panics
    /// With a DType error unless both are floats, with a Shape error if their shapes differ.
    ///
    /// ```
    /// use ferrograd_tensor::{Gate, Tensor};
    /// let both = Tensor::new([[-1.0f32, 2.0, 5.0, 7.0]]); // gate and up, side by side
    /// let halves = both.chunk(2, -1);
    /// assert_eq!(halves[0].gated(&halves[1], Gate::Relu).to_vec::<f32>(), [0.0, 14.0]);
    /// ```
    #[track_caller]
    pub fn gated(&self, up: &Tensor, activation: Gate) -> Tensor {
        let [gate, up] = operands("gated", self, up);
        let fused = gate.device().backend().gated(&gate, &up, activation);
        fused.unwrap_or_else(|| composed(&gate, &up, activation))
    }
    /// The gradients `(∂L/∂gate, ∂L/∂up) = (g·up·f'(gate), g·f(gate))` of [`gated`](Tensor::gated), from `g = ∂L/∂y`. All of one
    /// shape and dtype.
    #[track_caller]
    pub fn gated_backward(&self, up: &Tensor, activation: Gate, g: &Tensor) -> (Tensor, Tensor) {
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

/// The activated gate, in the dtype that it is computed in.
fn activated(gate: &Tensor, activation: Gate) -> Tensor {
    match activation {
        Gate::Sigmoid => gate.sigmoid(),
        Gate::Relu => gate.relu(),
        Gate::Gelu => gate.gelu(),
        Gate::GeluTanh => gate.gelu_tanh(),
        Gate::Silu => gate.silu(),
    }
}

/// [`Tensor::gated`] in elementwise operations: what a backend without the fused kernel runs.
pub fn composed(gate: &Tensor, up: &Tensor, activation: Gate) -> Tensor {
    (activated(&widened(gate), activation) * widened(up)).to_dtype(gate.dtype())
}

/// [`Tensor::gated_backward`], likewise.
pub fn composed_backward(gate: &Tensor, up: &Tensor, activation: Gate, g: &Tensor) -> (Tensor, Tensor) {
    let [x, up, g] = [gate, up, g].map(widened);
    let y = activated(&x, activation);
    let at = if activation == Gate::Sigmoid { &y } else { &x };
    let dgate = at.binary_grad(activation.derivative(), &(&g * up));
    (dgate.to_dtype(gate.dtype()), (g * &y).to_dtype(gate.dtype()))
}
