//! Lion.

use crate::options::{fraction, hyperparameters, named_options, not_negative};
use crate::{Moment, Rule, Stepper};
use ferrograd_tensor::ops::optimizer::{self, OptimizerStep};

/// Lion, "evolved sign momentum" (X. Chen et al. 2023, arXiv:2302.06675, algorithm 2): one state tensor, and steps of
/// one size, so that its learning rate is 3 to 10 times smaller than AdamW's and its weight decay as much larger.
///
/// `p ← p − lr·(sign(β₁m + (1 − β₁)g) + λp)`; `m ← β₂m + (1 − β₂)g`.
pub type Lion = Stepper<LionRule>;

hyperparameters! {
    /// The rule of [`Lion`].
    LionRule {
        /// Learning rate.
        lr: f64 = 1e-4,
        /// β₁ in [0, 1): weight of m in the direction.
        beta1: f64 = 0.9,
        /// β₂ in [0, 1): decay of m.
        beta2: f64 = 0.99,
        /// λ: each step shrinks p by the factor 1 − lr·λ.
        weight_decay: f64 = 0.0,
    }
}

impl Lion {
    /// β₁ and β₂.
    ///
    /// # Panics
    /// If one is not in [0, 1).
    #[track_caller]
    pub fn betas(self, beta1: f64, beta2: f64) -> Self {
        self.beta1(beta1).beta2(beta2)
    }
}

impl Rule for LionRule {
    const NAME: &'static str = "Lion";
    named_options!();
    fn check(&self) -> Result<(), String> {
        not_negative(&[("lr", self.lr), ("weight_decay", self.weight_decay)])?;
        fraction(&[("beta1", self.beta1), ("beta2", self.beta2)])
    }
    fn state_names(&self) -> Vec<&'static str> {
        vec!["exp_avg"]
    }
    fn step(&self, _at: Moment) -> OptimizerStep {
        let &LionRule { lr, beta1, beta2, weight_decay } = self;
        OptimizerStep::Lion(optimizer::Lion { lr, beta1, beta2, weight_decay })
    }
}
