//! Anchors nearer to what belongs to them than to what does not.

use super::{raised, reduce};
use ferrograd_autograd::{Reduction, Var};
use ferrograd_tensor::ensure;

/// `max(0, d(a, p) − d(a, n) + margin)` with the distance `d(x, y) = ‖x − y + eps‖_p` along the last dimension.
/// V. Balntas et al. 2016.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TripletMarginLoss {
    /// 1, unless set.
    pub margin: f64,
    /// The norm; 2, unless set.
    pub p: f64,
    /// What keeps the distance's derivative finite; 1e-6, unless set.
    pub eps: f64,
    /// Is the negative compared with the positive, where that is nearer to it than the anchor?
    pub swap: bool,
    /// Mean, unless set.
    pub reduction: Reduction,
}
impl Default for TripletMarginLoss {
    fn default() -> Self {
        TripletMarginLoss { margin: 1.0, p: 2.0, eps: 1e-6, swap: false, reduction: Reduction::Mean }
    }
}
impl TripletMarginLoss {
    /// The loss of anchors, positives and negatives `[…, D]`, of one shape.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn loss(&self, anchor: &Var, positive: &Var, negative: &Var) -> Var {
        const OP: &str = "triplet_margin";
        ensure!(
            anchor.rank() >= 1 && anchor.shape() == positive.shape() && anchor.shape() == negative.shape(),
            Shape,
            OP,
            "anchor, positive and negative must have one shape, got {}, {} and {}",
            anchor.shape(),
            positive.shape(),
            negative.shape()
        );
        let [a, p, n] = [anchor, positive, negative].map(|x| raised(OP, x));
        let distance = |x: &Var, y: &Var| (x - y + self.eps).norm_dims(self.p, -1);
        let mut far = distance(&a, &n);
        if self.swap {
            far = far.minimum(&distance(&p, &n));
        }
        reduce((distance(&a, &p) - far + self.margin).relu(), self.reduction)
    }
}

/// The mean of `max(0, ‖a − p‖ − ‖a − n‖ + 1)`.
#[track_caller]
pub fn triplet_margin(anchor: &Var, positive: &Var, negative: &Var) -> Var {
    TripletMarginLoss::default().loss(anchor, positive, negative)
}
