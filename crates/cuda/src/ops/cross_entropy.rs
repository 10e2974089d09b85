//! Cross-entropy of the rows of `[P, V]`.

use super::elementwise::{cast, full};
use super::layer_norm::optional;
use super::reduce::reduce;
use super::rows::launch_rows;
use crate::cuda::Cuda;
use crate::launch::Arguments;
use crate::programs::Program;
use ferrograd_tensor::backend::{CrossEntropyRows, Reduce};
use ferrograd_tensor::{DType, Tensor};

const FORWARD: Program = ("cross_entropy.cu", "");
const BACKWARD: Program = ("cross_entropy_backward.cu", "");

/// The weight of each class, in the dtype that losses are computed in.
fn class_weights(cuda: &'static Cuda, options: &CrossEntropyRows, dtype: DType) -> Option<Tensor> {
    // Row-major, as every result of a cast.
    options.weight.map(|w| cast(cuda, w, dtype))
}

/// What no target is equal to unless it is to be ignored: i64::MIN would have been out of range.
fn ignored(options: &CrossEntropyRows) -> i64 {
    options.ignore_index.unwrap_or(i64::MIN)
}

/// See [`Backend::cross_entropy`](ferrograd_tensor::backend::Backend::cross_entropy).
#[track_caller]
pub fn cross_entropy(
    cuda: &'static Cuda,
    x: &Tensor,
    targets: &Tensor,
    options: &CrossEntropyRows,
) -> (Tensor, Tensor, Tensor) {
    let (rows, dtype) = (targets.shape(), x.dtype().accumulator());
    if x.numel() == 0 {
        // No class: every target is ignored.
        let all = |value| full(cuda, rows, dtype, value);
        return (all(0.0), all(f64::NEG_INFINITY), full(cuda, &[].into(), dtype, 0.0));
    }
    let [loss, lse, counts] = [0; 3].map(|_| cuda.empty(rows, dtype));
    let (targets, weight) = (targets.contiguous(), class_weights(cuda, options, dtype));
    let rest = |arguments: Arguments| {
        let arguments = optional(arguments.tensor(&targets), weight.as_ref());
        arguments.value(ignored(options)).value(options.label_smoothing).tensor(&loss).tensor(&lse).tensor(&counts)
    };
    // SAFETY: a target, a loss and two statistics for each row, a weight for each class; all have the kernel's types.
    unsafe { launch_rows(cuda, FORWARD, 1, [x], rest) };
    let total = reduce(cuda, Reduce::Sum, &counts, &[0]).squeeze(0);
    (loss, lse, total)
}

/// See [`Backend::cross_entropy_backward`](ferrograd_tensor::backend::Backend::cross_entropy_backward).
#[track_caller]
pub fn cross_entropy_backward(
    cuda: &'static Cuda,
    x: &Tensor,
    targets: &Tensor,
    lse: &Tensor,
    scale: &Tensor,
    options: &CrossEntropyRows,
) -> Tensor {
    let dx = cuda.empty(x.shape(), x.dtype());
    if x.numel() == 0 {
        return dx;
    }
    let dtype = x.dtype().accumulator();
    let [lse, scale] = [lse, scale].map(|t| t.to_dtype(dtype).contiguous());
    let (targets, weight) = (targets.contiguous(), class_weights(cuda, options, dtype));
    let weight_sum = weight.as_ref().map(|w| reduce(cuda, Reduce::Sum, w, &[0]));
    let rest = |arguments: Arguments| {
        let arguments = optional(arguments.tensor(&targets), weight.as_ref());
        let arguments = optional(arguments, weight_sum.as_ref()).value(ignored(options));
        arguments.value(options.label_smoothing).tensor(&lse).tensor(&scale)
    };
    // SAFETY: a target and two numbers for each row, a weight for each class; all have the kernel's types.
    unsafe { launch_rows(cuda, BACKWARD, 1, [x, &dx], rest) };
    dx
}

/// Every program of these operations.
pub const PROGRAMS: [Program; 2] = [FORWARD, BACKWARD];
