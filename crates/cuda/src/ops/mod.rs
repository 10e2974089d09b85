//! One file for each operation: shapes and launches. The kernels are in the file of the same name in `kernels/`.

pub mod attention;
pub mod attention_backward_wgmma;
pub mod attention_wgmma;
pub mod cat;
pub mod channel_norm;
pub mod conv;
pub mod copy;
pub mod cross_entropy;
pub mod dropout;
pub mod elementwise;
pub mod gated;
pub mod gradient_norm;
pub mod gru;
pub mod index;
pub mod index_check;
pub mod int_mm;
pub mod layer_norm;
pub mod lstm;
pub mod matmul;
pub mod matmul_quantized;
pub mod matmul_wgmma;
pub mod matvec;
pub mod moments;
pub mod optimizer;
pub mod plane;
pub mod random;
pub mod recurrence;
pub mod recurrence_pass;
pub mod recurrence_plan;
pub mod reduce;
pub mod rms_norm;
pub mod rnn;
pub mod rope;
pub mod rows;
pub mod softmax;
pub mod sort;
pub mod split_k;
pub mod tensors;

use crate::cuda::Cuda;
use crate::ladder;
use crate::programs::Program;
use ferrograd_tensor::{DType, Device, Layout, Shape, Tensor};
use std::sync::Arc;

impl Cuda {
    /// A row-major tensor of unspecified contents.
    #[track_caller]
    pub(crate) fn empty(&'static self, shape: &Shape, dtype: DType) -> Tensor {
        let buffer = self.allocate(shape.numel() * dtype.size());
        Tensor::from_buffer(Arc::new(buffer), Layout::contiguous(shape), dtype, Device::from_backend(self))
    }
}

/// The dtype after which a kernel is named that only moves elements of this size.
pub fn moved_as(dtype: DType) -> DType {
    match dtype.size() {
        8 => DType::I64,
        4 => DType::I32,
        2 => DType::F16,
        _ => DType::U8,
    }
}

/// Every program: what is compiled ahead of time, and what the gates look at.
pub fn programs() -> Vec<Program> {
    let plain = [
        "full.cu",
        "copy.cu",
        "select.cu",
        "arg_reduce.cu",
        "cumsum.cu",
        "sort.cu",
        "matmul.cu",
        "matmul_simt.cu",
        "matvec.cu",
        "gather.cu",
        "index_add.cu",
        "index_check.cu",
        "q8_0.cu",
        "random.cu",
        "dropout.cu",
        "rope.cu",
        "gradient_norm.cu",
        "cat.cu",
        "moments.cu",
        "channel_norm.cu",
        "split_k.cu",
    ];
    let mut all: Vec<Program> = plain.map(|file| (file, "")).into();
    all.extend(elementwise::programs());
    all.extend(gated::programs());
    all.extend(softmax::programs());
    all.extend(layer_norm::programs());
    all.extend(cross_entropy::PROGRAMS);
    all.extend(optimizer::PROGRAMS);
    all.extend(plane::PROGRAMS);
    all.extend(conv::PROGRAMS);
    all.extend(matmul::programs());
    all.extend(int_mm::PROGRAMS);
    all.extend(matmul_wgmma::programs());
    all.extend(attention::programs());
    all.extend(attention_wgmma::programs());
    all.extend(attention_backward_wgmma::programs());
    all.extend(recurrence::programs());
    all.extend(ladder::programs());
    all.extend(reduce::DEFINES.map(|define| ("reduce.cu", define)));
    all
}
