//! Squared near the target, absolute far from it.

use super::{pair, reduce};
use ferrograd_autograd::{Reduction, Var};
use ferrograd_tensor::ensure;

/// `½d²` where `|d| < δ`, else `δ(|d| − ½δ)`, with `d = x − y`. P. Huber 1964.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HuberLoss {
    /// Where the parabola ends; 1, unless set.
    pub delta: f64,
    /// Mean, unless set.
    pub reduction: Reduction,
}
impl Default for HuberLoss {
    fn default() -> Self {
        HuberLoss { delta: 1.0, reduction: Reduction::Mean }
    }
}
impl HuberLoss {
    /// The loss of `input` at `target`, of one shape.
    ///
    /// # Panics
    /// If the shapes differ, or δ is not positive.
    #[track_caller]
    pub fn loss(&self, input: &Var, target: impl Into<Var>) -> Var {
        let delta = self.delta;
        ensure!(delta > 0.0, Value, "huber", "delta {delta} must be positive");
        let (x, y) = pair("huber", input, target);
        let d = x - y;
        let size = d.abs();
        let far = (&size - 0.5 * delta) * delta;
        reduce(Var::where_(&size.tensor().lt_scalar(delta), &(d.square() * 0.5), &far), self.reduction)
    }
}

/// The mean of `½d²` where `|d| < 1`, else `|d| − ½`.
#[track_caller]
pub fn huber(input: &Var, target: impl Into<Var>) -> Var {
    HuberLoss::default().loss(input, target)
}

/// `½d²/β` where `|d| < β`, else `|d| − ½β`, with `d = x − y`. R. Girshick 2015.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmoothL1Loss {
    /// Where the parabola ends; 1, unless set. With 0 this is [`L1Loss`](super::L1Loss).
    pub beta: f64,
    /// Mean, unless set.
    pub reduction: Reduction,
}
impl Default for SmoothL1Loss {
    fn default() -> Self {
        SmoothL1Loss { beta: 1.0, reduction: Reduction::Mean }
    }
}
impl SmoothL1Loss {
    /// The loss of `input` at `target`, of one shape.
    ///
    /// # Panics
    /// If the shapes differ, or β is negative.
    #[track_caller]
    pub fn loss(&self, input: &Var, target: impl Into<Var>) -> Var {
        let beta = self.beta;
        ensure!(beta >= 0.0, Value, "smooth_l1", "beta {beta} must not be negative");
        let (x, y) = pair("smooth_l1", input, target);
        let d = x - y;
        let size = d.abs();
        if beta == 0.0 {
            return reduce(size, self.reduction);
        }
        let near = d.square() * (0.5 / beta);
        reduce(Var::where_(&size.tensor().lt_scalar(beta), &near, &(&size - 0.5 * beta)), self.reduction)
    }
}

/// The mean of `½d²` where `|d| < 1`, else `|d| − ½`.
#[track_caller]
pub fn smooth_l1(input: &Var, target: impl Into<Var>) -> Var {
    SmoothL1Loss::default().loss(input, target)
}
