//! Cross-entropy of logits, with the options of [`CrossEntropy`].

use ferrograd_autograd::{CrossEntropy, Var};
use ferrograd_tensor::Tensor;

/// The mean of `−ln softmax(logits)[target]`: logits `[N, V]` or `[N, V, d1, …]`, targets i64 `[N]` or `[N, d1, …]`; −100
/// is ignored. More by [`Var::cross_entropy`].
#[track_caller]
pub fn cross_entropy(logits: &Var, targets: impl AsRef<Tensor>) -> Var {
    logits.cross_entropy(targets.as_ref(), &CrossEntropy::default())
}

/// The mean of `−Σ_v q_v ln softmax(logits)_v` for probabilities q of the logits' shape. More by
/// [`Var::cross_entropy_probs`].
#[track_caller]
pub fn cross_entropy_probs(logits: &Var, probabilities: impl AsRef<Tensor>) -> Var {
    logits.cross_entropy_probs(probabilities.as_ref(), &CrossEntropy::default())
}
