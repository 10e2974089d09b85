//! Adadelta.

use crate::options::{fraction, hyperparameters, named_options, not_negative};
use crate::{Moment, Rule, Stepper};
use ferrograd_tensor::ops::optimizer::{self, OptimizerStep};

/// Adadelta (M. D. Zeiler 2012, arXiv:1212.5701): steps in the units of the parameter.
///
/// `g ← g + λp`; `v ← ρv + (1 − ρ)g²`; `Δ = √(u + eps)/√(v + eps) · g`; `u ← ρu + (1 − ρ)Δ²`; `p ← p − lr·Δ`.
pub type Adadelta = Stepper<AdadeltaRule>;

hyperparameters! {
    /// The rule of [`Adadelta`].
    AdadeltaRule {
        /// Learning rate.
        lr: f64 = 1.0,
        /// ρ in [0, 1): decay of both means.
        rho: f64 = 0.9,
        /// Under both roots.
        eps: f64 = 1e-6,
        /// λ of the L2 penalty ½λ‖p‖².
        weight_decay: f64 = 0.0,
    }
}

impl Rule for AdadeltaRule {
    const NAME: &'static str = "Adadelta";
    named_options!();
    fn check(&self) -> Result<(), String> {
        not_negative(&[("lr", self.lr), ("eps", self.eps), ("weight_decay", self.weight_decay)])?;
        fraction(&[("rho", self.rho)])
    }
    fn state_names(&self) -> Vec<&'static str> {
        vec!["square_avg", "acc_delta"]
    }
    fn step(&self, _at: Moment) -> OptimizerStep {
        let &AdadeltaRule { lr, rho, eps, weight_decay } = self;
        OptimizerStep::Adadelta(optimizer::Adadelta { lr, rho, eps, weight_decay })
    }
}
