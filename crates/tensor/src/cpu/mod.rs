//! The CPU backend.
//!
//! Kernels are plain functions over typed slices; each file is named after its op.

mod backend;
mod elementwise;
pub mod gemm;
mod lanes;
pub mod level;
pub mod math;
mod matmul;
mod reduction;
mod simd;
mod strided;

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
