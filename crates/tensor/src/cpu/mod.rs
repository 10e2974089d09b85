//! The CPU backend.
//!
//! Kernels are plain functions over typed slices; each file is named after its op.

mod backend;
pub mod channel_norm;
pub mod cross_entropy;
mod elementwise;
pub mod gemm;
mod lanes;
pub mod layer_norm;
pub mod level;
pub mod math;
mod matmul;
mod normalising;
pub mod reduce;
mod reduction;
pub mod rms_norm;
pub mod rows;
mod simd;
pub mod softmax;
mod strided;
#[cfg(test)]
mod testing;

pub use backend::CpuBackend;
pub mod accumulate;
pub mod conv;
pub mod gemm;
pub mod index;
pub mod interpolate;
pub mod pool;
pub mod scan;
pub mod sort;

#[cfg(test)]
pub(crate) mod test_util;

pub mod attention;
pub mod attention_backward;
mod attention_tile;
pub mod gru;
pub mod lstm;
mod recurrence;
pub mod rnn;
pub mod seq_math;

pub use attention_tile::{Attention, AttentionDropout, AttentionMask, AttentionShape, DropoutMask, Operand};
pub use recurrence::{Recurrence, UpstreamGradients};

#[cfg(test)]
mod attention_tests;
#[cfg(test)]
mod recurrence_tests;
