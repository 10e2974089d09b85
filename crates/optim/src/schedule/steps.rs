//! Rates that fall in steps.

use super::Schedule;
use ferrograd_tensor::ensure;

/// `base · gamma^⌊t/step_size⌋`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[doc(alias = "StepLR")]
pub struct StepLr {
    step_size: usize,
    gamma: f64,
}
impl StepLr {
    /// The rate is multiplied by `gamma` every `step_size` steps.
    ///
    /// # Panics
    /// If `step_size` is 0.
    #[track_caller]
    pub fn new(step_size: usize, gamma: f64) -> Self {
        ensure!(step_size > 0, Value, "StepLr", "step_size must be above 0");
        StepLr { step_size, gamma }
    }
}
impl Schedule for StepLr {
    fn lr(&self, step: usize, base: f64) -> f64 {
        base * self.gamma.powf((step / self.step_size) as f64)
    }
}

/// The rate is multiplied by gamma at each milestone.
#[derive(Clone, Debug, PartialEq)]
#[doc(alias = "MultiStepLR")]
pub struct MultiStepLr {
    milestones: Vec<usize>,
    gamma: f64,
}
impl MultiStepLr {
    /// Falls at the steps `milestones`; one that is named twice counts twice.
    pub fn new(milestones: impl Into<Vec<usize>>, gamma: f64) -> Self {
        MultiStepLr { milestones: milestones.into(), gamma }
    }
}
impl Schedule for MultiStepLr {
    fn lr(&self, step: usize, base: f64) -> f64 {
        let passed = self.milestones.iter().filter(|&&m| m <= step).count();
        base * self.gamma.powf(passed as f64)
    }
}
