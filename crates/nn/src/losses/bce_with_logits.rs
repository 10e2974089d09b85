//! Binary cross-entropy of logits.

use super::bce::weighted;
use super::{pair, reduce};
use ferrograd_autograd::{Reduction, Var};
use ferrograd_tensor::Tensor;

/// `−w (p y ln σ(x) + (1 − y) ln(1 − σ(x)))` of logits x, computed as `(1 − y) x + (1 + (p − 1) y) softplus(−x)`, where
/// `softplus(−x) = max(−x, 0) + ln(1 + e^{−|x|})`: without overflow, and exact for large `|x|`. With p = 1 that is
/// `max(x, 0) − x y + ln(1 + e^{−|x|})`.
#[derive(Clone, Debug, Default)]
pub struct BceWithLogitsLoss {
    /// w: broadcasts to the input; 1, unless set.
    pub weight: Option<Tensor>,
    /// p: the weight of positive targets, broadcasts to the input; 1, unless set.
    pub pos_weight: Option<Tensor>,
    /// Mean, unless set.
    pub reduction: Reduction,
}
impl BceWithLogitsLoss {
    /// The loss of the logits `input` at `target`, of one shape.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn loss(&self, input: &Var, target: impl Into<Var>) -> Var {
        let (x, y) = pair("bce_with_logits", input, target);
        let mut log_term = (-&x).softplus();
        if let Some(p) = &self.pos_weight {
            let p = p.to_dtype(x.dtype());
            log_term = log_term * (&y * &(p - 1.0) + 1.0);
        }
        let losses = (1.0 - &y) * &x + log_term;
        reduce(weighted(losses, self.weight.as_ref()), self.reduction)
    }
}

/// The mean of `−(y ln σ(x) + (1 − y) ln(1 − σ(x)))` of logits x.
#[track_caller]
pub fn bce_with_logits(input: &Var, target: impl Into<Var>) -> Var {
    BceWithLogitsLoss::default().loss(input, target)
}
