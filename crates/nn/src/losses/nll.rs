//! Negative log-likelihood of log-probabilities.

use super::{raised, reduce};
use ferrograd_autograd::{Reduction, Var};
use ferrograd_tensor::{Shape, Tensor, ensure};

/// `−w[y] · x[y]` of log-probabilities x. The mean is weighted: `Σ −w[y] x[y] / Σ w[y]`.
#[derive(Clone, Debug)]
pub struct NllLoss {
    /// w `[V]`: a weight for each class; 1, unless set.
    pub weight: Option<Tensor>,
    /// Targets that count for nothing; −100, unless set.
    pub ignore_index: Option<i64>,
    /// Mean, unless set.
    pub reduction: Reduction,
}
impl Default for NllLoss {
    fn default() -> Self {
        NllLoss { weight: None, ignore_index: Some(-100), reduction: Reduction::Mean }
    }
}
impl NllLoss {
    /// The loss of log-probabilities `[N, V]` or `[N, V, d1, …]` at classes `[N]` or `[N, d1, …]`.
    ///
    /// # Panics
    /// If a shape does not fit, or a target is no class.
    #[track_caller]
    pub fn loss(&self, input: &Var, target: impl AsRef<Tensor>) -> Var {
        let (x, target) = (raised("nll", input), target.as_ref());
        ensure!(x.rank() >= 2, Shape, "nll", "expected log-probabilities [N, V, …], got {}", x.shape());
        let expected: Shape = x.shape().without(1);
        let (classes, fits) = (x.dim(1), *target.shape() == expected);
        ensure!(fits, Shape, "nll", "log-probabilities {} need targets {expected}, got {}", x.shape(), target.shape());
        ensure!(target.dtype().is_int(), DType, "nll", "targets must be integers, got {}", target.dtype());
        let ignored = match self.ignore_index {
            Some(index) => target.eq_scalar(index as f64),
            None => target.is_nan(),
        };
        let class = target.masked_fill(&ignored, 0.0);
        let wrong = class.lt_scalar(0.0).logical_or(&class.ge_scalar(classes as f64)).any().item::<bool>();
        ensure!(!wrong, Index, "nll", "a target lies outside 0..{classes}");

        // Masked, not only weighted with 0: an ignored row may hold −∞, and −∞ · 0 is NaN.
        let picked = x.gather(1, &class.unsqueeze(1)).squeeze(1).masked_fill(&ignored, 0.0);
        let weight = match &self.weight {
            Some(w) => {
                ensure!(*w.shape() == [classes], Shape, "nll", "the weight must be [{classes}], got {}", w.shape());
                w.to_dtype(x.dtype()).index_select(0, &class.flatten()).reshape(&expected)
            }
            None => picked.tensor().ones_like(),
        };
        let weight = weight.masked_fill(&ignored, 0.0);
        let losses = -(picked * &weight);
        match self.reduction {
            Reduction::Mean => losses.sum() / &Var::constant(weight.sum()),
            other => reduce(losses, other),
        }
    }
}

/// The mean of `−x[y]` of log-probabilities x; −100 is ignored.
#[track_caller]
pub fn nll(input: &Var, target: impl AsRef<Tensor>) -> Var {
    NllLoss::default().loss(input, target)
}
