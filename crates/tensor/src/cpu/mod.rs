//! The CPU backend.
//!
//! Kernels are plain functions over typed slices; each file is named after its op.

pub mod gemm;
pub mod lanes;
pub mod level;
pub mod math;
pub mod simd;
pub mod unary;
