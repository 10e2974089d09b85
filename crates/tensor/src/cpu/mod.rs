//! The CPU backend.
//!
//! Kernels are plain functions over typed slices; each file is named after its op.

pub mod cross_entropy;
pub mod gemm;
pub mod half;
pub mod lanes;
pub mod layer_norm;
pub mod level;
pub mod math;
pub mod optimizer;
pub mod random;
pub mod reduce;
pub mod rms_norm;
pub mod rows;
pub mod simd;
pub mod softmax;
pub mod unary;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod throughput;
