//! The CPU backend.
//!
//! Kernels are plain functions over typed slices; each file is named after its op.

pub mod gemm;
pub mod level;
