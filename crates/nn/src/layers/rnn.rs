//! Simple recurrent networks.

use super::recurrent::{Core, Recurrent, settings};
use crate::Module;
use ferrograd_autograd::ops::RnnNonlinearity;
use ferrograd_autograd::{Var, ops};

/// A simple recurrent network, J. Elman 1990: `hₜ = tanh(W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh)`, or ReLU in place of tanh.
///
/// Shapes, names and initial values as in [`Lstm`](super::Lstm), with `hidden` rows.
#[derive(Module)]
#[module(extra_repr)]
pub struct Rnn {
    #[module(flatten)]
    core: Core,
    #[module(skip)]
    nonlinearity: RnnNonlinearity,
}
settings!(Rnn);

impl Rnn {
    /// One layer, one direction, with biases and tanh.
    pub fn new(input_size: usize, hidden_size: usize) -> Rnn {
        Rnn { core: Core::new(1, input_size, hidden_size), nonlinearity: RnnNonlinearity::Tanh }
    }
    /// tanh or ReLU.
    pub fn nonlinearity(mut self, nonlinearity: RnnNonlinearity) -> Rnn {
        self.nonlinearity = nonlinearity;
        self
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
        let (y, [h_n]) = self.core.run("Rnn", x, lengths, [state], |x, weights, [h], options| {
            let (y, h) = ops::rnn(x, &weights, h, self.nonlinearity, options);
            (y, [h])
        });
        (y, h_n)
    }
}
impl Recurrent for Rnn {
    #[track_caller]
    fn final_state(&self, x: &Var) -> Var {
        self.core.last(&self.forward(x).1)
    }
}
