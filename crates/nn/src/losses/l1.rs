//! Mean absolute error.

use super::{pair, reduce};
use ferrograd_autograd::{Reduction, Var};

/// `|x − y|`; the derivative at 0 is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L1Loss {
    /// Mean, unless set.
    pub reduction: Reduction,
}
impl L1Loss {
    /// The loss of `input` at `target`, of one shape.
    #[track_caller]
    pub fn loss(&self, input: &Var, target: impl Into<Var>) -> Var {
        let (x, y) = pair("l1", input, target);
        reduce((x - y).abs(), self.reduction)
    }
}

/// The mean of `|x − y|`.
#[track_caller]
pub fn l1(input: &Var, target: impl Into<Var>) -> Var {
    L1Loss::default().loss(input, target)
}
