//! AdamW.

use crate::adam::{check, state_names};
use crate::options::{hyperparameters, named_options};
use crate::{Moment, Rule, Stepper};
use ferrograd_tensor::ops::optimizer::{self, OptimizerStep};

/// Adam with decoupled weight decay (I. Loshchilov, F. Hutter 2017, arXiv:1711.05101): first `p ← (1 − lr·λ)p`, then
/// [`Adam`](crate::Adam)'s step without a penalty.
pub type AdamW = Stepper<AdamWRule>;

hyperparameters! {
    /// The rule of [`AdamW`].
    AdamWRule {
        /// Learning rate.
        lr: f64 = 1e-3,
        /// β₁ in [0, 1): decay of the mean of the gradient.
        beta1: f64 = 0.9,
        /// β₂ in [0, 1): decay of the mean of its square.
        beta2: f64 = 0.999,
        /// Added to the denominator.
        eps: f64 = 1e-8,
        /// λ: each step shrinks p by the factor 1 − lr·λ.
        weight_decay: f64 = 0.01,
        /// Divide by the largest second moment so far.
        amsgrad: bool = false,
    }
}

impl AdamW {
    /// β₁ and β₂.
    ///
    /// # Panics
    /// If one is not in [0, 1).
    #[track_caller]
    pub fn betas(self, beta1: f64, beta2: f64) -> Self {
        self.beta1(beta1).beta2(beta2)
    }
}

impl Rule for AdamWRule {
    const NAME: &'static str = "AdamW";
    named_options!();
    fn check(&self) -> Result<(), String> {
        check([self.lr, self.eps, self.weight_decay], [self.beta1, self.beta2])
    }
    fn state_names(&self) -> Vec<&'static str> {
        state_names(self.amsgrad)
    }
    fn step(&self, at: Moment) -> OptimizerStep {
        let &AdamWRule { lr, beta1, beta2, eps, weight_decay, amsgrad } = self;
        let step = optimizer::Adam { lr, beta1, beta2, eps, weight_decay, amsgrad, decoupled: true, step: at.step };
        OptimizerStep::Adam(step)
    }
}
