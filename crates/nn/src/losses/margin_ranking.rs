//! One score above another.

use super::{pair, reduce};
use ferrograd_autograd::{Reduction, Var};

/// `max(0, −y (x₁ − x₂) + margin)`: y = 1 asks for `x₁ > x₂`, y = −1 for the opposite.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MarginRankingLoss {
    /// By how much; 0, unless set.
    pub margin: f64,
    /// Mean, unless set.
    pub reduction: Reduction,
}
impl MarginRankingLoss {
    /// The loss of the scores `x1` and `x2` at `target`, of one shape.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn loss(&self, x1: &Var, x2: &Var, target: impl Into<Var>) -> Var {
        let (x1, x2) = pair("margin_ranking", x1, x2);
        let (d, y) = pair("margin_ranking", &(x1 - x2), target);
        reduce((self.margin - d * y).relu(), self.reduction)
    }
}

/// The mean of `max(0, −y (x₁ − x₂))`.
#[track_caller]
pub fn margin_ranking(x1: &Var, x2: &Var, target: impl Into<Var>) -> Var {
    MarginRankingLoss::default().loss(x1, x2, target)
}
