//! Adagrad.

use crate::options::{hyperparameters, named_options, not_negative};
use crate::{Moment, Rule, Stepper};
use ferrograd_tensor::ops::optimizer::{self, OptimizerStep};

/// Adagrad (J. Duchi, E. Hazan, Y. Singer 2011): each element's learning rate falls with the gradients it has seen.
///
/// `g ← g + λp`; `s ← s + g²`; `p ← p − lr/(1 + (t − 1)·lr_decay) · g/(√s + eps)`.
pub type Adagrad = Stepper<AdagradRule>;

hyperparameters! {
    /// The rule of [`Adagrad`].
    AdagradRule {
        /// Learning rate.
        lr: f64 = 1e-2,
        /// How fast the learning rate falls by itself.
        lr_decay: f64 = 0.0,
        /// λ of the L2 penalty ½λ‖p‖².
        weight_decay: f64 = 0.0,
        /// What the sum of squares starts as.
        initial_accumulator_value: f64 = 0.0,
        /// Added to the denominator.
        eps: f64 = 1e-10,
    }
}

impl Rule for AdagradRule {
    const NAME: &'static str = "Adagrad";
    named_options!();
    fn check(&self) -> Result<(), String> {
        not_negative(&self.options())
    }
    fn state_names(&self) -> Vec<&'static str> {
        vec!["sum"]
    }
    fn initial(&self, _name: &str) -> f64 {
        self.initial_accumulator_value
    }
    fn step(&self, at: Moment) -> OptimizerStep {
        let &AdagradRule { lr, lr_decay, weight_decay, eps, .. } = self;
        let step = optimizer::Adagrad { lr, lr_decay, eps, weight_decay, step: at.step };
        OptimizerStep::Adagrad(step)
    }
}
