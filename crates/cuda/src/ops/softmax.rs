//! Softmax and its logarithm along a dimension.

use super::rows::launch_rows;
use crate::cuda::Cuda;
use crate::programs::Program;
use ferrograd_tensor::Tensor;

/// Which of the two, as the kernels' define.
#[derive(Clone, Copy)]
pub enum Softmax {
    Plain,
    Log,
}

impl Softmax {
    fn define(self) -> &'static str {
        match self {
            Softmax::Plain => "FUNCTION=softmax",
            Softmax::Log => "FUNCTION=log_softmax",
        }
    }
}

/// See [`Backend::softmax`](ferrograd_tensor::backend::Backend::softmax).
#[track_caller]
pub fn softmax(cuda: &'static Cuda, kind: Softmax, x: &Tensor, dim: usize) -> Tensor {
    let y = cuda.empty(x.shape(), x.dtype());
    // SAFETY: the kernels take two operands of one dtype.
    unsafe { launch_rows(cuda, ("softmax.cu", kind.define()), dim, [x, &y], |a| a) };
    y
}

/// See [`Backend::softmax_backward`](ferrograd_tensor::backend::Backend::softmax_backward).
#[track_caller]
pub fn softmax_backward(cuda: &'static Cuda, kind: Softmax, y: &Tensor, g: &Tensor, dim: usize) -> Tensor {
    let dx = cuda.empty(y.shape(), y.dtype());
    // SAFETY: the kernels take three operands of one dtype.
    unsafe { launch_rows(cuda, ("softmax_backward.cu", kind.define()), dim, [y, g, &dx], |a| a) };
    dx
}

/// Every program of these operations.
pub fn programs() -> impl Iterator<Item = Program> {
    let both = [Softmax::Plain, Softmax::Log];
    both.into_iter().flat_map(|kind| ["softmax.cu", "softmax_backward.cu"].map(|file| (file, kind.define())))
}
