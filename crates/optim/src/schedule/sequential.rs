//! One schedule after another.

use super::Schedule;
use ferrograd_tensor::ensure;

/// Schedules one after another, each from its own step 0 and the base rate, as in PyTorch:
/// `SequentialLr::starting_with(LinearLr::new(0.1, 1.0, 100)).then(100, CosineAnnealingLr::new(900))`.
#[doc(alias = "SequentialLR")]
pub struct SequentialLr {
    /// Each part with the step that it starts at, in order; the first starts at 0.
    parts: Vec<(usize, Box<dyn Schedule>)>,
}
impl SequentialLr {
    /// The first part.
    pub fn starting_with(schedule: impl Schedule + 'static) -> Self {
        SequentialLr { parts: vec![(0, Box::new(schedule))] }
    }
    /// The next part, from step `milestone` on.
    ///
    /// # Panics
    /// If the milestone is not after the one before, or the parts are not all of a kind: rates that are given by the
    /// schedule cannot follow ones that are given by the group.
    #[track_caller]
    pub fn then(mut self, milestone: usize, schedule: impl Schedule + 'static) -> Self {
        const OP: &str = "SequentialLr";
        let last = self.parts.last().map_or(0, |p| p.0);
        ensure!(milestone > last, Value, OP, "milestone {milestone} must be after {last}");
        ensure!(
            schedule.is_absolute() == self.is_absolute(),
            Value,
            OP,
            "cannot mix schedules that set the rate with schedules that scale the group's"
        );
        self.parts.push((milestone, Box::new(schedule)));
        self
    }
    fn part(&self, step: usize) -> (usize, &dyn Schedule) {
        let (start, part) = self.parts.iter().rfind(|p| p.0 <= step).expect("the first part starts at 0");
        (step - start, &**part)
    }
}
impl Schedule for SequentialLr {
    fn lr(&self, step: usize, base: f64) -> f64 {
        let (step, part) = self.part(step);
        part.lr(step, base)
    }
    fn is_absolute(&self) -> bool {
        self.parts[0].1.is_absolute()
    }
    fn momentum(&self, step: usize) -> Option<f64> {
        let (step, part) = self.part(step);
        part.momentum(step)
    }
}
