//! Ladders for students: `kernels/ladder/`, one idea in each step, from the definition to what the shipping kernel is made of.
//!
//! ```no_run
//! use ferrograd_cuda::{CudaDevice, ladder};
//! use ferrograd_tensor::{Device, Tensor};
//! let cuda = Device::cuda(0)?;
//! for step in ladder::MATMUL {
//!     let [a, b] = [Tensor::ones([64, 64]), Tensor::ones([64, 64])].map(|x| x.to_dtype(step.dtype).to_device(&cuda));
//!     println!("{}: {}", step.name, step.matmul(&a, &b).sum());
//! }
//! # Ok::<(), ferrograd_tensor::Error>(())
//! ```

mod attention;
mod matmul;
mod rows;

pub use attention::{ATTENTION, AttentionStep};
pub use matmul::{MATMUL, MatmulStep};
pub use rows::{LAYER_NORM, RowStep, SOFTMAX};

use crate::cuda::Cuda;
use crate::programs::Program;
use ferrograd_tensor::error::throw;
use ferrograd_tensor::{DType, Tensor, ensure};

/// What is compiled ahead of time.
pub(crate) fn programs() -> impl Iterator<Item = Program> {
    let files = MATMUL.iter().map(|step| step.file).chain(ATTENTION.iter().map(|step| step.file));
    files.chain([SOFTMAX, LAYER_NORM].into_iter().flatten().map(|step| step.file)).map(|file| (file, ""))
}

/// The card that all operands of a step are on, which have its dtype.
#[track_caller]
fn card(step: &'static str, operands: &[&Tensor], dtype: DType) -> &'static Cuda {
    let dtypes: Vec<DType> = operands.iter().map(|x| x.dtype()).collect();
    ensure!(dtypes.iter().all(|&d| d == dtype), DType, step, "needs {dtype}, not {dtypes:?}");
    let devices: Vec<String> = operands.iter().map(|x| x.device().to_string()).collect();
    let (kind, index) = operands[0].device().backend().id();
    let here = kind == "cuda" && operands.iter().all(|x| x.device() == operands[0].device());
    ensure!(here, Device, step, "needs its operands on one card, not on {}", devices.join(" and "));
    Cuda::get(index).unwrap_or_else(|e| throw(e))
}

/// Row-major, and at a multiple of 16 bytes if the step asks for it: a view may begin anywhere.
fn row_major(x: &Tensor, aligned: bool) -> Tensor {
    if x.is_contiguous() && !aligned { x.clone() } else { x.copy() }
}
