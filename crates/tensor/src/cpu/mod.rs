//! The CPU backend.
//!
//! Kernels are plain functions over typed slices; each file is named after its op.

pub mod accumulate;
mod along;
pub mod attention;
pub mod attention_backward;
mod attention_tensor;
mod attention_tile;
mod backend;
mod cat;
pub mod channel_norm;
pub mod conv;
pub mod cross_entropy;
mod distribution;
mod dropout;
mod elementwise;
mod gated;
pub mod gemm;
mod gru;
mod half;
pub mod index;
pub mod interpolate;
pub mod lanes;
pub mod layer_norm;
pub mod level;
mod lstm;
pub mod math;
mod matmul;
mod normalising;
pub mod optimizer;
mod parallel;
pub mod peak;
mod plane;
pub mod pool;
pub(crate) mod quantized;
pub mod random;
mod recurrence;
pub mod reduce;
pub mod rms_norm;
mod rnn;
mod rope;
pub mod rows;
pub mod scan;
mod scratch;
pub mod seq_math;
mod sequence_tensor;
pub mod simd;
pub mod softmax;
pub mod sort;
mod strided;
pub(crate) mod threads;
mod through_time;
mod widen;

pub use attention_tile::{
    Attention, AttentionDropout, AttentionElement, AttentionMask, AttentionShape, DropoutMask, Operand, Output,
};
pub use backend::CpuBackend;
use recurrence::{Recurrence, UpstreamGradients};
pub use seq_math::SeqFloat;
pub(crate) use widen::widened;

#[cfg(test)]
mod attention_tests;
#[cfg(test)]
mod recurrence_tests;
#[cfg(test)]
pub(crate) mod test_util;
#[cfg(test)]
mod testing;
