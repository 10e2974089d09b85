//! Gradients kept within bounds.

use ferrograd_autograd::Gradients;
use ferrograd_nn::Param;
use ferrograd_tensor::backend::Binary;
use ferrograd_tensor::{Tensor, ensure};

/// Scales the gradients of `params` together so that their norm is at most `max_norm`, and returns what it was.
///
/// The norm is that of all elements as one vector, `(Σ|g|ᵖ)^(1/p)`, with p = `norm_type` (2 as a rule; infinity for the
/// largest element). The gradients are multiplied by `min(1, max_norm/(norm + 1e-6))`, as in PyTorch. A norm that is NaN
/// makes them NaN; check what is returned. Parameters without gradient do not take part.
///
/// # Panics
/// If `max_norm` is negative or NaN, or `norm_type` is not above 0.
#[track_caller]
pub fn clip_grad_norm<'a>(
    grads: &mut Gradients,
    params: impl IntoIterator<Item = &'a Param>,
    max_norm: f64,
    norm_type: f64,
) -> f64 {
    const OP: &str = "clip_grad_norm";
    ensure!(max_norm >= 0.0, Value, OP, "max_norm must be ≥ 0, got {max_norm}");
    ensure!(norm_type > 0.0, Value, OP, "norm_type must be above 0, got {norm_type}");
    let params: Vec<&Param> = distinct(params);
    let norms: Vec<f64> = params.iter().filter_map(|p| grads.get(*p)).map(|g| norm(g, norm_type)).collect();
    let total = vector_norm(&norms, norm_type);
    let factor = max_norm / (total + 1e-6);
    if factor >= 1.0 {
        return total;
    }
    for p in params {
        let Some(mut g) = grads.remove(p) else { continue };
        g.make_unique();
        let scale = Tensor::full_on((), factor, g.dtype(), &g.device()).expand(g.shape());
        g.device().backend().binary_assign(Binary::Mul, &mut g, &scale);
        grads.insert(p, g);
    }
    total
}

/// Limits every element of the gradients of `params` to `[−limit, limit]`; NaN stays NaN.
///
/// # Panics
/// If `limit` is negative or NaN.
#[track_caller]
pub fn clip_grad_value<'a>(grads: &mut Gradients, params: impl IntoIterator<Item = &'a Param>, limit: f64) {
    ensure!(limit >= 0.0, Value, "clip_grad_value", "the limit must be ≥ 0, got {limit}");
    for p in distinct(params) {
        if let Some(g) = grads.remove(p) {
            grads.insert(p, g.clamp(-limit, limit));
        }
    }
}

/// Each parameter once: a tied one has one gradient.
fn distinct<'a>(params: impl IntoIterator<Item = &'a Param>) -> Vec<&'a Param> {
    let mut seen = std::collections::HashSet::new();
    params.into_iter().filter(|p| seen.insert(p.id())).collect()
}

/// The norm of one gradient, accumulated in f32 for half types. Divided by its largest element first, so that no power
/// overflows.
fn norm(g: &Tensor, p: f64) -> f64 {
    if g.numel() == 0 {
        return 0.0;
    }
    let g = g.to_dtype(g.dtype().accumulator()).abs();
    let largest = g.max().item::<f64>();
    if p == f64::INFINITY || largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    if p == 1.0 {
        return g.sum().item::<f64>();
    }
    let g = g / largest;
    let powers = if p == 2.0 { g.square() } else { g.powf(p) };
    largest * powers.sum().item::<f64>().powf(1.0 / p)
}

/// The norm of a vector of norms.
fn vector_norm(norms: &[f64], p: f64) -> f64 {
    // f64::max would drop a NaN.
    let largest = norms.iter().copied().fold(0.0, |a: f64, b| if b > a || b.is_nan() { b } else { a });
    if p == f64::INFINITY || largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    largest * norms.iter().map(|n| (n / largest).powf(p)).sum::<f64>().powf(1.0 / p)
}
