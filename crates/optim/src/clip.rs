//! Gradients kept within bounds.

use ferrograd_autograd::Gradients;
use ferrograd_nn::Param;
use ferrograd_tensor::backend::Binary;
use ferrograd_tensor::{DType, Tensor, ensure};

/// Scales the gradients of `params` together so that their norm is at most `max_norm`, and returns what it was: a scalar (f64)
/// where the gradients are, so that nobody waits for it who does not look at it.
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
) -> Tensor {
    const OP: &str = "clip_grad_norm";
    ensure!(max_norm >= 0.0, Value, OP, "max_norm must be ≥ 0, got {max_norm}");
    ensure!(norm_type > 0.0, Value, OP, "norm_type must be above 0, got {norm_type}");
    let params: Vec<&Param> = distinct(params).into_iter().filter(|p| grads.get(*p).is_some()).collect();
    let total = total_norm(params.iter().filter_map(|p| grads.get(*p)), norm_type);
    let factor = ((&total + 1e-6).recip() * max_norm).clamp(f64::NEG_INFINITY, 1.0);
    // Where looking costs nothing.
    if factor.device().is_cpu() && factor.item::<f64>() == 1.0 {
        return total;
    }
    let mut scaled: Vec<Tensor> = params.iter().filter_map(|p| grads.remove(*p)).collect();
    scale(scaled.iter_mut().map(Tensor::make_unique).collect(), &factor);
    params.into_iter().zip(scaled).for_each(|(p, g)| grads.insert(p, g));
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

/// Runs `f` on the tensors of each device and dtype together.
fn of_each_kind<T: AsRef<Tensor>>(xs: Vec<T>, mut f: impl FnMut(Vec<T>)) {
    let mut left = xs;
    while let Some(first) = left.first() {
        let kind = |x: &T| (x.as_ref().device(), x.as_ref().dtype());
        let one = kind(first);
        let (alike, rest) = left.into_iter().partition(|x| kind(x) == one);
        f(alike);
        left = rest;
    }
}

/// Each tensor times a scalar, in place: nobody else holds them.
fn scale(xs: Vec<&mut Tensor>, factor: &Tensor) {
    of_each_kind(xs, |mut alike| {
        let (device, dtype) = (alike[0].device(), alike[0].dtype());
        let factor = factor.to_device(&device);
        if !device.backend().scale_all(&mut alike, &factor) {
            for x in alike {
                let factor = factor.to_dtype(dtype).expand(x.shape());
                device.backend().binary_assign(Binary::Mul, x, &factor);
            }
        }
    });
}

/// The norm of all tensors as one vector, an f64 on the device of the first.
fn total_norm<'a>(xs: impl Iterator<Item = &'a Tensor>, p: f64) -> Tensor {
    let mut norms = Vec::new();
    of_each_kind(xs.map(Tensor::contiguous).collect(), |alike| {
        let all: Vec<&Tensor> = alike.iter().collect();
        let fused = if p == 2.0 { all[0].device().backend().norm_of_all(&all) } else { None };
        match fused {
            Some(norm) => norms.push(norm),
            None => norms.extend(alike.iter().map(|x| norm(x, p).to_dtype(DType::F64))),
        }
    });
    let Some(first) = norms.first() else { return Tensor::scalar(0.0f64) };
    let device = first.device();
    let norms: Vec<Tensor> = norms.iter().map(|n| n.to_device(&device).reshape([1])).collect();
    norm(&Tensor::cat(&norms.iter().collect::<Vec<_>>(), 0), p)
}

/// The norm of a tensor, accumulated in f32 for half types. Divided by its largest element first, so that no power overflows;
/// but for an infinite one, which would become NaN.
fn norm(x: &Tensor, p: f64) -> Tensor {
    let x = x.to_dtype(x.dtype().accumulator()).abs();
    if x.numel() == 0 {
        return x.sum();
    }
    let largest = x.max();
    if p == f64::INFINITY {
        return largest;
    }
    if p == 1.0 {
        return x.sum();
    }
    let divides = largest.gt_scalar(0.0).logical_and(&largest.lt_scalar(f64::INFINITY));
    let unit = divides.where_(&largest, &largest.full_like(1.0));
    let x = &x / &unit;
    let powers = if p == 2.0 { x.square() } else { x.powf(p) };
    // In f64, where neither the root nor the product of two finite numbers of f32 overflows.
    powers.sum().to_dtype(DType::F64).powf(1.0 / p) * unit.to_dtype(DType::F64)
}
