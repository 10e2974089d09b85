//! Kullback–Leibler divergence.

use super::{pair, reduce};
use ferrograd_autograd::{Reduction, Var};

/// How the divergences become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KlReduction {
    /// The sum divided by the first extent: the divergence itself, averaged over the batch.
    BatchMean,
    /// The mean over all elements, PyTorch's default (not the divergence: it divides by the classes too).
    #[default]
    Mean,
    /// The sum.
    Sum,
    /// All of them.
    None,
}

/// `y (ln y − x)` of log-probabilities x and probabilities y (0 where y is 0), or `eʸ (y − x)` of log-probabilities y.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KlDivLoss {
    /// Are the targets log-probabilities?
    pub log_target: bool,
    /// Mean, unless set.
    pub reduction: KlReduction,
}
impl KlDivLoss {
    /// The loss of the log-probabilities `input` at `target`, of one shape.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn loss(&self, input: &Var, target: impl Into<Var>) -> Var {
        let (x, y) = pair("kl_div", input, target);
        let losses = if self.log_target {
            y.exp() * (&y - &x)
        } else {
            // y ln y is 0 at 0: there the logarithm is taken of 1.
            let log_y = y.masked_fill(&y.tensor().eq_scalar(0.0), 1.0).log();
            &y * (log_y - x)
        };
        match self.reduction {
            KlReduction::BatchMean => {
                let batch = if losses.rank() == 0 { 1 } else { losses.dim(0) };
                losses.sum() / batch as f64
            }
            KlReduction::Mean => reduce(losses, Reduction::Mean),
            KlReduction::Sum => reduce(losses, Reduction::Sum),
            KlReduction::None => losses,
        }
    }
}

/// The mean over all elements of `y (ln y − x)` of log-probabilities x and probabilities y.
#[track_caller]
pub fn kl_div(input: &Var, target: impl Into<Var>) -> Var {
    KlDivLoss::default().loss(input, target)
}
