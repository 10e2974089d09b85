//! Adam.

use crate::options::{fraction, hyperparameters, named_options, not_negative};
use crate::{Moment, Rule, Stepper};
use ferrograd_tensor::ops::optimizer::{self, OptimizerStep};

/// Adam (D. P. Kingma, J. Ba 2014, arXiv:1412.6980) with L2 weight decay; [`AdamW`](crate::AdamW) decouples the decay.
///
/// `g ← g + λp`; `m ← β₁m + (1 − β₁)g`; `v ← β₂v + (1 − β₂)g²`; `p ← p − lr · m̂/(√v̂ + eps)` with `m̂ = m/(1 − β₁ᵗ)` and
/// `v̂ = v/(1 − β₂ᵗ)`. With `amsgrad` (S. J. Reddi et al. 2018, arXiv:1904.09237) the largest v so far is in v's place.
pub type Adam = Stepper<AdamRule>;

hyperparameters! {
    /// The rule of [`Adam`].
    AdamRule {
        /// Learning rate.
        lr: f64 = 1e-3,
        /// β₁ in [0, 1): decay of the mean of the gradient.
        beta1: f64 = 0.9,
        /// β₂ in [0, 1): decay of the mean of its square.
        beta2: f64 = 0.999,
        /// Added to the denominator.
        eps: f64 = 1e-8,
        /// λ of the L2 penalty ½λ‖p‖².
        weight_decay: f64 = 0.0,
        /// Divide by the largest second moment so far.
        amsgrad: bool = false,
    }
}

impl Adam {
    /// β₁ and β₂.
    ///
    /// # Panics
    /// If one is not in [0, 1).
    #[track_caller]
    pub fn betas(self, beta1: f64, beta2: f64) -> Self {
        self.beta1(beta1).beta2(beta2)
    }
}

impl Rule for AdamRule {
    const NAME: &'static str = "Adam";
    named_options!();
    fn check(&self) -> Result<(), String> {
        check([self.lr, self.eps, self.weight_decay], [self.beta1, self.beta2])
    }
    fn state_names(&self) -> Vec<&'static str> {
        state_names(self.amsgrad)
    }
    fn step(&self, at: Moment) -> OptimizerStep {
        let &AdamRule { lr, beta1, beta2, eps, weight_decay, amsgrad } = self;
        let step = optimizer::Adam { lr, beta1, beta2, eps, weight_decay, amsgrad, decoupled: false, step: at.step };
        OptimizerStep::Adam(step)
    }
}

/// The domains that Adam and AdamW share.
pub(crate) fn check([lr, eps, weight_decay]: [f64; 3], [beta1, beta2]: [f64; 2]) -> Result<(), String> {
    not_negative(&[("lr", lr), ("eps", eps), ("weight_decay", weight_decay)])?;
    fraction(&[("beta1", beta1), ("beta2", beta2)])
}

/// PyTorch's names of the moments.
pub(crate) fn state_names(amsgrad: bool) -> Vec<&'static str> {
    let names = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
    names[..if amsgrad { 3 } else { 2 }].to_vec()
}
