//! Mean squared error.

use super::{pair, reduce};
use ferrograd_autograd::{Reduction, Var};

/// `(x − y)²`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MseLoss {
    /// Mean, unless set.
    pub reduction: Reduction,
}
impl MseLoss {
    /// The loss of `input` at `target`, of one shape.
    #[track_caller]
    pub fn loss(&self, input: &Var, target: impl Into<Var>) -> Var {
        let (x, y) = pair("mse", input, target);
        reduce((x - y).square(), self.reduction)
    }
}

/// The mean of `(x − y)²`.
#[track_caller]
pub fn mse(input: &Var, target: impl Into<Var>) -> Var {
    MseLoss::default().loss(input, target)
}
