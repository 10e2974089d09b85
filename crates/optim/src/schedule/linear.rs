//! Linear warm-up and decay.

use super::Schedule;
use ferrograd_tensor::ensure;

/// The base rate times a factor that goes from `start_factor` to `end_factor` in `total_iters` steps and stays there.
#[derive(Clone, Copy, Debug, PartialEq)]
#[doc(alias = "LinearLR")]
pub struct LinearLr {
    start_factor: f64,
    end_factor: f64,
    total_iters: usize,
}
impl LinearLr {
    /// See the type: a warm-up is `LinearLr::new(0.1, 1.0, 100)`.
    ///
    /// # Panics
    /// If `start_factor` is not in (0, 1] or `end_factor` not in [0, 1].
    #[track_caller]
    pub fn new(start_factor: f64, end_factor: f64, total_iters: usize) -> Self {
        const OP: &str = "LinearLr";
        ensure!(
            start_factor > 0.0 && start_factor <= 1.0,
            Value,
            OP,
            "start_factor must be in (0, 1], got {start_factor}"
        );
        ensure!((0.0..=1.0).contains(&end_factor), Value, OP, "end_factor must be in [0, 1], got {end_factor}");
        LinearLr { start_factor, end_factor, total_iters }
    }
}
impl Schedule for LinearLr {
    fn lr(&self, step: usize, base: f64) -> f64 {
        if step >= self.total_iters {
            return base * self.end_factor;
        }
        let progress = step as f64 / self.total_iters as f64;
        base * (self.start_factor + (self.end_factor - self.start_factor) * progress)
    }
}
