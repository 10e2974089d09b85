//! Mean and spread over some dimensions, in one read.

use super::reduce::{Plan, split};
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::Layout;
use crate::programs::KernelId;
use ferrograd_tensor::{Shape, Tensor};

/// What is made of the sum of squares.
#[derive(Clone, Copy)]
pub enum Spread {
    /// `Σ (x − mean)² / (n − correction)`
    Variance { correction: f64 },
    /// `1/√(Σ (x − mean)²/n + eps)`
    Rstd { eps: f64 },
}

fn id(name: &'static str, x: &Tensor) -> KernelId {
    KernelId { file: "moments.cu", define: "", name, dtype: Some(x.dtype()) }
}

/// Mean and spread of `x`, which has an element, over `dims`, in the accumulator's dtype; each has `shape`, with an element for each of
/// the other dimensions' indices.
#[track_caller]
pub fn moments(cuda: &'static Cuda, x: &Tensor, dims: &[usize], spread: Spread, shape: &Shape) -> (Tensor, Tensor) {
    let (kept, reduced) = split(x, dims);
    let plan = Plan::of(&kept, &reduced);
    let [mean, result] = [0; 2].map(|_| cuda.empty(shape, x.dtype().accumulator()));
    // Count, mean and squares of each part.
    let parts = cuda.empty(&[plan.parts, kept.numel(), 3].into(), x.dtype().accumulator());
    let arguments = Arguments::default()
        .tensor(x)
        .tensor(&parts)
        .value(Layout::of([&kept]))
        .value(Layout::of([&reduced]))
        .value(plan.part as i64);
    // SAFETY: there is room for each part of each line; the layouts are parts of `x`.
    unsafe { cuda.launch(id(plan.name, x), plan.grid, plan.block, 0, arguments) };
    let (correction, root, eps) = match spread {
        Spread::Variance { correction } => (correction, 0, 0.0),
        Spread::Rstd { eps } => (0.0, 1i32, eps),
    };
    let arguments =
        Arguments::default().tensor(x).tensor(&parts).tensor(&mean).tensor(&result).value(Layout::of([&kept]));
    let arguments = arguments.value(plan.parts as i64).value(correction).value(root).value(eps);
    // SAFETY: the parts are those that were just written; the results have an element for each line.
    unsafe { cuda.launch(id("finish", x), cuda.grid_for(kept.numel()), BLOCK, 0, arguments) };
    (mean, result)
}

/// See [`Backend::mean_var`](ferrograd_tensor::backend::Backend::mean_var). None of nothing.
#[track_caller]
pub fn mean_var(cuda: &'static Cuda, x: &Tensor, dims: &[usize], correction: f64) -> Option<(Tensor, Tensor)> {
    let shape: Shape = x.dims().iter().enumerate().map(|(d, &n)| if dims.contains(&d) { 1 } else { n }).collect();
    (x.numel() > 0).then(|| moments(cuda, x, dims, Spread::Variance { correction }, &shape))
}
