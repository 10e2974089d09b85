//! RMSprop.

use crate::options::{fraction, hyperparameters, named_options, not_negative};
use crate::{Moment, Rule, Stepper};
use ferrograd_tensor::ops::optimizer::{self, OptimizerStep};

/// RMSprop (T. Hinton 2012, lecture 6.5; centred as in A. Graves 2013, arXiv:1308.0850).
///
/// `g ← g + λp`; `v ← αv + (1 − α)g²`; `d = √v + eps`, or centred, with `a ← αa + (1 − α)g`, `d = √(v − a²) + eps`;
/// `p ← p − lr·g/d`, or with momentum `b ← μb + g/d`, `p ← p − lr·b`.
#[doc(alias = "RMSprop")]
pub type RmsProp = Stepper<RmsPropRule>;

hyperparameters! {
    /// The rule of [`RmsProp`].
    RmsPropRule {
        /// Learning rate.
        lr: f64 = 1e-2,
        /// α in [0, 1): decay of the mean of the squared gradient.
        alpha: f64 = 0.99,
        /// Added to the denominator.
        eps: f64 = 1e-8,
        /// λ of the L2 penalty ½λ‖p‖².
        weight_decay: f64 = 0.0,
        /// μ in [0, 1): how much of the last direction stays.
        momentum: f64 = 0.0,
        /// Divide by the standard deviation instead of the root of the mean square.
        centered: bool = false,
    }
}

impl Rule for RmsPropRule {
    const NAME: &'static str = "RMSprop";
    named_options!();
    fn check(&self) -> Result<(), String> {
        not_negative(&[("lr", self.lr), ("eps", self.eps), ("weight_decay", self.weight_decay)])?;
        fraction(&[("alpha", self.alpha), ("momentum", self.momentum)])
    }
    fn state_names(&self) -> Vec<&'static str> {
        let mut names = vec!["square_avg"];
        if self.centered {
            names.push("grad_avg");
        }
        if self.momentum != 0.0 {
            names.push("momentum_buffer");
        }
        names
    }
    fn step(&self, _at: Moment) -> OptimizerStep {
        let &RmsPropRule { lr, alpha, eps, weight_decay, momentum, centered } = self;
        let step = optimizer::RmsProp { lr, alpha, eps, weight_decay, momentum, centered };
        OptimizerStep::RmsProp(step)
    }
}
