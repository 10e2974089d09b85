//! Quantised weights: see `kernels/q8_0.cu`.

use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::programs::KernelId;
use ferrograd_tensor::{BlockFormat, DType, Q8_0, QuantizedTensor, Tensor};

/// Rows of activations for which the weights are used as they are: each four cost what decoding costs once.
const FEW: usize = 8;

fn id(name: &'static str) -> KernelId {
    KernelId { file: "q8_0.cu", define: "", name, dtype: None }
}

/// Is there a kernel for the format?
fn is_known(w: &QuantizedTensor) -> bool {
    w.format().name() == Q8_0.name() && w.format().block_bytes() == Q8_0.block_bytes()
}

/// See [`Backend::dequantize`](ferrograd_tensor::backend::Backend::dequantize).
#[track_caller]
pub fn dequantize(cuda: &'static Cuda, w: &QuantizedTensor) -> Option<Tensor> {
    if !is_known(w) {
        return None;
    }
    let out = cuda.empty(w.shape(), DType::F32);
    let blocks = w.shape().numel() / Q8_0.block_len();
    if blocks > 0 {
        let arguments = Arguments::default().tensor(w.blocks()).tensor(&out).value(blocks as i64);
        // SAFETY: so many blocks of the format, and a row-major matrix of their weights.
        unsafe { cuda.launch(id("dequantize"), cuda.grid_for(blocks * 8), BLOCK, 0, arguments) };
    }
    Some(out)
}

/// See [`Backend::matmul_quantized`](ferrograd_tensor::backend::Backend::matmul_quantized); of few rows.
#[track_caller]
pub fn matmul_quantized(cuda: &'static Cuda, x: &Tensor, w: &QuantizedTensor) -> Option<Tensor> {
    let ([m, k], n) = (x.dims_of("matmul_quantized"), w.shape()[0]);
    if !is_known(w) || m > FEW || k == 0 {
        return None;
    }
    // Row-major, at a multiple of 16 bytes: a view may begin anywhere.
    let (x, y) = (x.copy(), cuda.empty(&[m, n].into(), DType::F32));
    if m * n > 0 {
        let arguments = Arguments::default().tensor(w.blocks()).tensor(&x).tensor(&y);
        let arguments = arguments.value(n as i64).value(k as i64).value(m as i64);
        let grid = [n.div_ceil(BLOCK as usize / 32) as u32, m.div_ceil(4) as u32, 1];
        // SAFETY: the format's blocks of an [N, K] matrix, row-major [M, K] and [M, N].
        unsafe { cuda.launch(id("matvec"), grid, BLOCK, 0, arguments) };
    }
    Some(y)
}
