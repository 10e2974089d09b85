//! Exponential decay.

use super::Schedule;

/// `base · gammaᵗ`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[doc(alias = "ExponentialLR")]
pub struct ExponentialLr {
    gamma: f64,
}
impl ExponentialLr {
    /// The rate is multiplied by `gamma` at every step.
    pub fn new(gamma: f64) -> Self {
        ExponentialLr { gamma }
    }
}
impl Schedule for ExponentialLr {
    fn lr(&self, step: usize, base: f64) -> f64 {
        base * self.gamma.powf(step as f64)
    }
}
