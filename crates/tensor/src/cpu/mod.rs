//! The CPU backend.
//!
//! Kernels are plain functions over typed slices; each file is named after its op.

pub mod gemm;

pub mod attention;
pub mod attention_backward;
mod attention_tile;
pub mod seq_math;

pub use attention_tile::{Attention, AttentionDropout, AttentionMask, AttentionShape, DropoutMask, Operand};
