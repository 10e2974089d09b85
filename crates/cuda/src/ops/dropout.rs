//! Dropout: the mask is made where it is used.

use crate::cuda::Cuda;
use crate::programs::KernelId;
use ferrograd_tensor::Tensor;

/// See [`Backend::dropout`](ferrograd_tensor::backend::Backend::dropout).
#[track_caller]
pub fn dropout(cuda: &'static Cuda, x: &Tensor, p: f64, seed: u64, offset: u64) -> Tensor {
    let y = cuda.empty(x.shape(), x.dtype());
    let keep = 1.0 - p;
    let threshold = (keep * 4_294_967_296.0).round() as u64;
    let id = KernelId { file: "dropout.cu", define: "", name: "dropout", dtype: Some(x.dtype()) };
    let stream = cuda.random_stream(seed, offset);
    // SAFETY: the kernel takes two operands of this dtype; the second is row-major.
    unsafe { cuda.map(id, [x, &y], |a| a.value(1.0 / keep).value(stream).value(threshold)) };
    y
}
