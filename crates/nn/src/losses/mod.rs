//! What is minimised: each loss as a function with PyTorch's defaults, and as a struct of its options with a method `loss`.
//!
//! ```
//! use ferrograd_autograd::{Reduction, Var};
//! use ferrograd_nn::losses::{HuberLoss, mse};
//! use ferrograd_tensor::Tensor;
//! let (x, y) = (Var::leaf(Tensor::new([1.0, 5.0])), Tensor::new([0.0, 2.0]));
//! assert_eq!(mse(&x, &y).item::<f64>(), 5.0);
//! let huber = HuberLoss { delta: 2.0, reduction: Reduction::Sum };
//! assert_eq!(huber.loss(&x, &y).item::<f64>(), 0.5 + 4.0);
//! ```
//!
//! Inputs and targets have one shape, unless a loss says otherwise: nothing broadcasts, since `[B, 1]` against `[B]` is
//! nearly always a mistake. Integer targets are cast to the input's dtype, floating-point ones are promoted with
//! it. Under autocast losses compute in f32.

mod bce;
mod bce_with_logits;
mod cosine;
mod cross_entropy;
mod hinge;
mod huber;
mod kl_div;
mod l1;
mod margin_ranking;
mod mse;
mod nll;
mod triplet_margin;

pub use bce::{BceLoss, bce};
pub use bce_with_logits::{BceWithLogitsLoss, bce_with_logits};
pub use cosine::{CosineEmbeddingLoss, cosine_embedding, cosine_similarity};
pub use cross_entropy::{cross_entropy, cross_entropy_probs};
pub use hinge::{HingeEmbeddingLoss, HingeLoss, hinge, hinge_embedding};
pub use huber::{HuberLoss, SmoothL1Loss, huber, smooth_l1};
pub use kl_div::{KlDivLoss, KlReduction, kl_div};
pub use l1::{L1Loss, l1};
pub use margin_ranking::{MarginRankingLoss, margin_ranking};
pub use mse::{MseLoss, mse};
pub use nll::{NllLoss, nll};
pub use triplet_margin::{TripletMarginLoss, triplet_margin};

use ferrograd_autograd::{Reduction, Var, autocast_dtype};
use ferrograd_tensor::{DType, ensure};

/// One number, or all of them.
#[track_caller]
fn reduce(losses: Var, reduction: Reduction) -> Var {
    match reduction {
        Reduction::Mean => losses.mean(),
        Reduction::Sum => losses.sum(),
        Reduction::None => losses,
    }
}

/// A float, and under autocast no half type.
#[track_caller]
fn raised(op: &'static str, x: &Var) -> Var {
    ensure!(x.dtype().is_float(), DType, op, "the input must be a float, got {}", x.dtype());
    match autocast_dtype() {
        Some(_) if x.dtype().is_half() => x.to_dtype(DType::F32),
        _ => x.clone(),
    }
}

/// Input and target in one dtype.
///
/// # Panics
/// If their shapes differ.
#[track_caller]
fn pair(op: &'static str, input: &Var, target: impl Into<Var>) -> (Var, Var) {
    let (input, target) = (raised(op, input), target.into());
    ensure!(
        input.shape() == target.shape(),
        Shape,
        op,
        "input and target must have one shape, got {} and {}",
        input.shape(),
        target.shape()
    );
    let dtype = if target.dtype().is_float() { input.dtype().promote(target.dtype()) } else { input.dtype() };
    (input.to_dtype(dtype), target.to_dtype(dtype))
}
