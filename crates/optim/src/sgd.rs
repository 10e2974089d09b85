//! Stochastic gradient descent.

use crate::options::{fraction, hyperparameters, named_options, not_negative};
use crate::{Moment, Rule, Stepper};
use ferrograd_tensor::ops::optimizer::{self, OptimizerStep};

/// Stochastic gradient descent with momentum (B. Polyak 1964; I. Sutskever et al. 2013 for Nesterov's form here).
///
/// `g ← g + λp`; with momentum `b ← μb + (1 − dampening)g` (`b ← g` at the first step), and the direction is b, or
/// `g + μb` with Nesterov; `p ← p − lr · direction`.
#[doc(alias = "SGD")]
pub type Sgd = Stepper<SgdRule>;

hyperparameters! {
    /// The rule of [`Sgd`].
    SgdRule {
        /// Learning rate.
        lr: f64 = 1e-3,
        /// μ in [0, 1): how much of the last direction stays.
        momentum: f64 = 0.0,
        /// How much less than the whole gradient enters the momentum buffer, in [0, 1).
        dampening: f64 = 0.0,
        /// λ of the L2 penalty ½λ‖p‖².
        weight_decay: f64 = 0.0,
        /// Nesterov's look-ahead; needs momentum and no dampening.
        nesterov: bool = false,
    }
}

impl Rule for SgdRule {
    const NAME: &'static str = "SGD";
    named_options!();
    fn check(&self) -> Result<(), String> {
        not_negative(&[("lr", self.lr), ("weight_decay", self.weight_decay)])?;
        fraction(&[("momentum", self.momentum), ("dampening", self.dampening)])
    }
    fn check_together(&self) -> Result<(), String> {
        if self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0) {
            let (momentum, dampening) = (self.momentum, self.dampening);
            return Err(format!(
                "nesterov needs momentum > 0 and dampening 0, got momentum {momentum} and dampening {dampening}"
            ));
        }
        Ok(())
    }
    fn state_names(&self) -> Vec<&'static str> {
        if self.momentum == 0.0 { vec![] } else { vec!["momentum_buffer"] }
    }
    fn step(&self, at: Moment) -> OptimizerStep {
        let &SgdRule { lr, momentum, dampening, weight_decay, nesterov } = self;
        let step = optimizer::Sgd { lr, momentum, dampening, weight_decay, nesterov, first: at.fresh };
        OptimizerStep::Sgd(step)
    }
}
