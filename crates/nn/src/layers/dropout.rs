//! Zeros at random places.

use crate::{Mode, Module};
use ferrograd_autograd::Var;
use ferrograd_tensor::ensure;

/// In training, each element is zero with probability p, and the others are divided by 1 − p, so that the mean stays; in
/// evaluation, the input as it is. N. Srivastava et al. 2014.
#[derive(Module)]
#[module(extra_repr)]
pub struct Dropout {
    p: f64,
    mode: Mode,
}
layer!(Dropout);

impl Dropout {
    /// Drops with probability `p`.
    ///
    /// # Panics
    /// If `p` is not in `[0, 1]`.
    #[track_caller]
    pub fn new(p: f64) -> Dropout {
        check_probability("Dropout", p);
        Dropout { p, mode: Mode::new() }
    }
    /// The probability in force: 0 in evaluation.
    pub fn active(&self) -> f64 {
        if self.mode.training() { self.p } else { 0.0 }
    }
    /// The input with zeros, of the same shape.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        if self.active() > 0.0 { x.dropout(self.p) } else { x.clone() }
    }
    fn extra_repr(&self) -> String {
        format!("p={}", self.p)
    }
}

/// Is `p` a probability?
#[track_caller]
pub(super) fn check_probability(layer: &'static str, p: f64) {
    ensure!((0.0..=1.0).contains(&p), Value, layer, "the dropout probability {p} is not in [0, 1]");
}
