//! Learning rates that change during training.
//!
//! A [`Schedule`] is a function of the step; a [`Scheduler`] applies one to an optimiser. They follow PyTorch's: the rate
//! that holds during step t = 0, 1, … is `schedule.lr(t, base)`.
//!
//! ```
//! use ferrograd_nn::Param;
//! use ferrograd_optim::{Optimizer, Scheduler, Sgd, WarmupCosine};
//! use ferrograd_tensor::Tensor;
//! let mut sgd = Sgd::new([Param::new(Tensor::zeros(1))]);
//! let mut scheduler = Scheduler::new(WarmupCosine { peak: 1e-3, floor: 1e-4, warmup: 3, total: 10 }, &mut sgd);
//! assert_eq!(sgd.get_lr(), 1e-3 / 4.0);
//! for _ in 0..10 {
//!     // forward, backward, sgd.step(&grads), then:
//!     scheduler.step(&mut sgd);
//! }
//! assert_eq!(sgd.get_lr(), 1e-4);
//! ```

mod cosine;
mod exponential;
mod linear;
mod noam;
mod one_cycle;
mod plateau;
mod scheduler;
mod sequential;
mod steps;

pub use cosine::{CosineAnnealingLr, WarmupCosine};
pub use exponential::ExponentialLr;
pub use linear::LinearLr;
pub use noam::NoamLr;
pub use one_cycle::{Anneal, OneCycleLr};
pub use plateau::{PlateauMode, ReduceLrOnPlateau, Threshold};
pub use scheduler::Scheduler;
pub use sequential::SequentialLr;
pub use steps::{MultiStepLr, StepLr};

/// A learning rate as a function of the step. Any `Fn(usize, f64) -> f64` is one:
/// `Scheduler::new(|step: usize, base: f64| base / (1.0 + step as f64), &mut adam)`.
pub trait Schedule {
    /// The rate during step `step`, from 0, of a group whose rate was set to `base`.
    fn lr(&self, step: usize, base: f64) -> f64;
    /// Is the rate given by the schedule, whatever `base`? Groups then keep the ratio of their own rates to the first
    /// group's.
    fn is_absolute(&self) -> bool {
        false
    }
    /// The momentum (β₁ where there is none) during step `step`, if the schedule changes it.
    fn momentum(&self, _step: usize) -> Option<f64> {
        None
    }
}
impl<F: Fn(usize, f64) -> f64> Schedule for F {
    fn lr(&self, step: usize, base: f64) -> f64 {
        self(step, base)
    }
}
impl Schedule for Box<dyn Schedule> {
    fn lr(&self, step: usize, base: f64) -> f64 {
        (**self).lr(step, base)
    }
    fn is_absolute(&self) -> bool {
        (**self).is_absolute()
    }
    fn momentum(&self, step: usize) -> Option<f64> {
        (**self).momentum(step)
    }
}

/// `start` at 0, `end` at 1, along half a cosine between them.
fn half_cosine(start: f64, end: f64, progress: f64) -> f64 {
    end + (start - end) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}
