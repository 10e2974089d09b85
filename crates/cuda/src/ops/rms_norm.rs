//! RMS norm of the rows of `[R, N]`.

use super::layer_norm::{Normed, RMS_NORM};
use crate::cuda::Cuda;
use ferrograd_tensor::Tensor;

/// See [`Backend::rms_norm`](ferrograd_tensor::backend::Backend::rms_norm).
#[track_caller]
pub fn rms_norm(cuda: &'static Cuda, x: &Tensor, weight: Option<&Tensor>, eps: f64) -> (Tensor, Tensor) {
    let Normed { y, rstd, .. } = RMS_NORM.forward(cuda, x, None, weight, None, eps);
    (y, rstd)
}

/// See [`Backend::rms_norm_backward`](ferrograd_tensor::backend::Backend::rms_norm_backward).
#[track_caller]
pub fn rms_norm_backward(
    cuda: &'static Cuda,
    x: &Tensor,
    weight: Option<&Tensor>,
    rstd: &Tensor,
    g: &Tensor,
    others: Option<&Tensor>,
    parameters: bool,
) -> (Tensor, Option<Tensor>) {
    let (dx, sums) = RMS_NORM.backward(cuda, x, weight, None, rstd, g, others, parameters);
    (dx, sums.map(|(dweight, _)| dweight))
}
