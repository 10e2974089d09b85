//! Nothing beyond a margin.

use super::{pair, reduce};
use ferrograd_autograd::{Reduction, Var};

/// `max(0, 1 − y x)` of scores x and targets y that are 1 or −1, or its square.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HingeLoss {
    /// Is the loss squared?
    pub squared: bool,
    /// Mean, unless set.
    pub reduction: Reduction,
}
impl HingeLoss {
    /// The loss of the scores `input` at `target`, of one shape.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn loss(&self, input: &Var, target: impl Into<Var>) -> Var {
        let (x, y) = pair("hinge", input, target);
        let losses = (1.0 - x * y).relu();
        reduce(if self.squared { losses.square() } else { losses }, self.reduction)
    }
}

/// The mean of `max(0, 1 − y x)`.
#[track_caller]
pub fn hinge(input: &Var, target: impl Into<Var>) -> Var {
    HingeLoss::default().loss(input, target)
}

/// `x` where y is 1, `max(0, margin − x)` where y is −1, of distances x.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HingeEmbeddingLoss {
    /// How large the distance of a pair that does not belong together must be; 1, unless set.
    pub margin: f64,
    /// Mean, unless set.
    pub reduction: Reduction,
}
impl Default for HingeEmbeddingLoss {
    fn default() -> Self {
        HingeEmbeddingLoss { margin: 1.0, reduction: Reduction::Mean }
    }
}
impl HingeEmbeddingLoss {
    /// The loss of the distances `input` at `target`, of one shape.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn loss(&self, input: &Var, target: impl Into<Var>) -> Var {
        let (x, y) = pair("hinge_embedding", input, target);
        let losses = Var::where_(&y.tensor().gt_scalar(0.0), &x, &x.rsub_scalar(self.margin).relu());
        reduce(losses, self.reduction)
    }
}

/// The mean of `x` where y is 1, `max(0, 1 − x)` where y is −1.
#[track_caller]
pub fn hinge_embedding(input: &Var, target: impl Into<Var>) -> Var {
    HingeEmbeddingLoss::default().loss(input, target)
}
