//! Gated recurrent units.

use super::recurrent::{Core, Recurrent, settings};
use crate::Module;
use ferrograd_autograd::{Var, ops};

/// Gated recurrent units, K. Cho et al. 2014, in PyTorch's variant: the reset gate multiplies after the recurrent product.
///
/// ```text
/// r, z = σ(W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh)
/// n    = tanh(W_in xₜ + b_in + r ⊙ (W_hn hₜ₋₁ + b_hn))
/// hₜ   = (1 − z) ⊙ n + z ⊙ hₜ₋₁
/// ```
///
/// Shapes, names and initial values as in [`Lstm`](super::Lstm), with `3·hidden` rows.
#[derive(Module)]
#[module(extra_repr)]
pub struct Gru {
    #[module(flatten)]
    core: Core,
}
settings!(Gru);

impl Gru {
    /// One layer, one direction, with biases.
    pub fn new(input_size: usize, hidden_size: usize) -> Gru {
        Gru { core: Core::new(3, input_size, hidden_size) }
    }
    /// `(outputs, h_n)` from zero states.
    ///
    /// # Panics
    /// If `x` has another shape.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> (Var, Var) {
        self.forward_with(x, None, None)
    }
    /// `(outputs, h_n)` from the state `h_0`, each row of the batch as long as `lengths` says, as in
    /// [`Lstm::forward_with`](super::Lstm::forward_with).
    ///
    /// # Panics
    /// If a shape or a length does not fit.
    #[track_caller]
    pub fn forward_with(&self, x: &Var, state: Option<&Var>, lengths: Option<&[usize]>) -> (Var, Var) {
        let (y, [h_n]) = self.core.run("Gru", x, lengths, [state], |x, weights, [h], options| {
            let (y, h) = ops::gru(x, &weights, h, options);
            (y, [h])
        });
        (y, h_n)
    }
}
impl Recurrent for Gru {
    #[track_caller]
    fn final_state(&self, x: &Var) -> Var {
        self.core.last(&self.forward(x).1)
    }
}
