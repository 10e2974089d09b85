//! The CPU backend.
//!
//! Kernels are plain functions over typed slices; each file is named after its op.

pub mod gemm;

pub mod attention;
pub mod attention_backward;
mod attention_tile;
pub mod gru;
pub mod lstm;
mod recurrence;
pub mod rnn;
mod seq_math;

pub use attention_tile::{Attention, AttentionDropout, AttentionMask, AttentionShape, DropoutMask, Operand};
pub use recurrence::{Recurrence, UpstreamGradients};
pub use seq_math::SeqFloat;

#[cfg(test)]
mod attention_tests;
#[cfg(test)]
mod recurrence_tests;
