//! The gated network of a transformer block.

use super::linear::Linear;
use crate::Module;
use ferrograd_autograd::{Activation, Var};

/// `y = W_down (f(W_gate x) · W_up x)`, N. Shazeer 2020: the network of a transformer block since Llama, with SwiGLU.
/// `[…, dim]` → the same.
///
/// Parameters, under Llama's names: `gate_proj.weight` and `up_proj.weight` `[hidden_dim, dim]`, `down_proj.weight`
/// `[dim, hidden_dim]`, and biases if there are.
///
/// ```
/// use ferrograd_autograd::{Activation, Var};
/// use ferrograd_nn::GatedMlp;
/// use ferrograd_tensor::Tensor;
/// let x = Var::constant(Tensor::randn([2, 5, 8]));
/// assert_eq!(GatedMlp::new(8, 24).forward(&x).dims(), [2, 5, 8]); // SwiGLU
/// assert_eq!(GatedMlp::new(8, 24).activation(Activation::GeluTanh).forward(&x).dims(), [2, 5, 8]); // GEGLU
/// ```
#[derive(Module)]
pub struct GatedMlp {
    /// To what is activated, `[hidden_dim, dim]`.
    pub gate_proj: Linear,
    /// To what it lets through, `[hidden_dim, dim]`.
    pub up_proj: Linear,
    /// Back, `[dim, hidden_dim]`.
    pub down_proj: Linear,
    activation: Activation,
}
layer!(GatedMlp);

impl GatedMlp {
    /// SwiGLU, without biases.
    pub fn new(dim: usize, hidden_dim: usize) -> GatedMlp {
        GatedMlp {
            gate_proj: Linear::new(dim, hidden_dim).bias(false),
            up_proj: Linear::new(dim, hidden_dim).bias(false),
            down_proj: Linear::new(hidden_dim, dim).bias(false),
            activation: Activation::Silu,
        }
    }
    /// Another activation of the gate.
    pub fn activation(mut self, activation: Activation) -> GatedMlp {
        self.activation = activation;
        self
    }
    /// With or without biases.
    pub fn bias(mut self, bias: bool) -> GatedMlp {
        self.gate_proj = self.gate_proj.bias(bias);
        self.up_proj = self.up_proj.bias(bias);
        self.down_proj = self.down_proj.bias(bias);
        self
    }
    /// `[…, dim]` → `[…, dim]`.
    ///
    /// # Panics
    /// If the last dimension of `x` is not `dim`.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        let (gate, up) = (self.gate_proj.forward(x), self.up_proj.forward(x));
        self.down_proj.forward(&gate.gated(&up, self.activation))
    }
}
