//! The angle between vectors.

use super::{raised, reduce};
use ferrograd_autograd::{Reduction, Var};
use ferrograd_tensor::ensure;

/// `x₁·x₂ / (max(‖x₁‖, eps) max(‖x₂‖, eps))` along `dim`, which disappears. Shapes broadcast. PyTorch's eps is 1e-8.
#[track_caller]
pub fn cosine_similarity(x1: &Var, x2: &Var, dim: isize, eps: f64) -> Var {
    let (x1, x2) = (raised("cosine_similarity", x1), raised("cosine_similarity", x2));
    // The clamp is inside the root, so that the derivative at 0 is 0 and not 0/0.
    let norm = |x: &Var| x.square().sum_dims(dim).clamp(eps * eps, f64::INFINITY).sqrt();
    (&x1 * &x2).sum_dims(dim) / (norm(&x1) * norm(&x2))
}

/// `1 − cos(x₁, x₂)` where y is 1, `max(0, cos(x₁, x₂) − margin)` where y is −1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CosineEmbeddingLoss {
    /// How small the cosine of a pair that does not belong together must be; 0, unless set.
    pub margin: f64,
    /// Mean, unless set.
    pub reduction: Reduction,
}
impl CosineEmbeddingLoss {
    /// The loss of pairs of vectors `[N, D]` (or `[D]`) with targets `[N]` (or `[]`) that are 1 or −1.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn loss(&self, x1: &Var, x2: &Var, target: impl Into<Var>) -> Var {
        const OP: &str = "cosine_embedding";
        let target = target.into();
        ensure!(
            x1.shape() == x2.shape() && x1.rank() >= 1 && *target.shape() == x1.shape().without(x1.rank() - 1),
            Shape,
            OP,
            "expected pairs [N, D] and targets [N], got {}, {} and {}",
            x1.shape(),
            x2.shape(),
            target.shape()
        );
        // As in PyTorch's loss: the lengths get a small number, rather than a smallest value.
        let (x1, x2) = (raised(OP, x1), raised(OP, x2));
        let square = |x: &Var| x.square().sum_dims(-1) + 1e-12;
        let cosine = (&x1 * &x2).sum_dims(-1) / (square(&x1) * square(&x2)).sqrt();
        let together = target.tensor().gt_scalar(0.0);
        let losses = Var::where_(&together, &(1.0 - &cosine), &(&cosine - self.margin).relu());
        reduce(losses, self.reduction)
    }
}

/// The mean of `1 − cos(x₁, x₂)` where y is 1, `max(0, cos(x₁, x₂))` where y is −1.
#[track_caller]
pub fn cosine_embedding(x1: &Var, x2: &Var, target: impl Into<Var>) -> Var {
    CosineEmbeddingLoss::default().loss(x1, x2, target)
}
