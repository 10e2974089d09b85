//! The CPU backend.
//!
//! Kernels are plain functions over typed slices; each file is named after its op.

pub mod accumulate;
mod along;
pub mod attention;
pub mod attention_backward;
mod attention_tile;
mod backend;
pub mod conv;
mod elementwise;
pub mod gemm;
pub mod gru;
pub mod index;
pub mod interpolate;
mod lanes;
pub mod level;
pub mod lstm;
pub mod math;
mod matmul;
pub mod pool;
mod recurrence;
pub mod reduce;
pub mod rnn;
pub mod rows;
pub mod scan;
pub mod seq_math;
mod simd;
pub mod sort;
mod strided;

pub use attention_tile::{Attention, AttentionDropout, AttentionMask, AttentionShape, DropoutMask, Operand};
pub use backend::CpuBackend;
pub use recurrence::{Recurrence, UpstreamGradients};

#[cfg(test)]
mod attention_tests;
#[cfg(test)]
mod recurrence_tests;
#[cfg(test)]
pub(crate) mod test_util;
#[cfg(test)]
mod testing;
