//! Long short-term memory.

use super::recurrent::{Core, Recurrent, settings};
use crate::Module;
use ferrograd_autograd::{Var, ops};

/// Long short-term memory, S. Hochreiter, J. Schmidhuber 1997, with the gates of F. Gers et al. 2000:
///
/// ```text
/// i, f, g, o = σ, σ, tanh, σ of W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh
/// cₜ = f ⊙ cₜ₋₁ + i ⊙ g        hₜ = o ⊙ tanh cₜ
/// ```
///
/// Inputs are `[B, T, input_size]` (PyTorch's `batch_first=True`, which is the default here), outputs
/// `[B, T, directions · hidden_size]`, states `[layers · directions, B, hidden_size]`.
///
/// Parameters, for each layer `k` and, with the suffix `_reverse`, for the second direction: `weight_ih_lk`
/// `[4·hidden, input]`, `weight_hh_lk` `[4·hidden, hidden]`, `bias_ih_lk` and `bias_hh_lk` `[4·hidden]`, all from
/// U(±1/√hidden).
#[derive(Module)]
#[module(extra_repr)]
pub struct Lstm {
    #[module(flatten)]
    core: Core,
}
settings!(Lstm);

impl Lstm {
    /// One layer, one direction, with biases.
    pub fn new(input_size: usize, hidden_size: usize) -> Lstm {
        Lstm { core: Core::new(4, input_size, hidden_size) }
    }
    /// `(outputs, (h_n, c_n))` from zero states.
    ///
    /// # Panics
    /// If `x` has another shape.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> (Var, (Var, Var)) {
        self.forward_with(x, None, None)
    }
    /// `(outputs, (h_n, c_n))` from the states `(h_0, c_0)`, each row of the batch as long as `lengths` says: outputs after
    /// a row's length are 0, its final states are those at its last step, and its second direction begins there.
    ///
    /// # Panics
    /// If a shape or a length does not fit.
    #[track_caller]
    pub fn forward_with(&self, x: &Var, state: Option<(&Var, &Var)>, lengths: Option<&[usize]>) -> (Var, (Var, Var)) {
        let initial = [state.map(|s| s.0), state.map(|s| s.1)];
        let (y, [h_n, c_n]) = self.core.run("Lstm", x, lengths, initial, |x, weights, [h, c], options| {
            let (y, h, c) = ops::lstm(x, &weights, h, c, options);
            (y, [h, c])
        });
        (y, (h_n, c_n))
    }
}
impl Recurrent for Lstm {
    #[track_caller]
    fn final_state(&self, x: &Var) -> Var {
        self.core.last(&self.forward(x).1.0)
    }
}
