//! The CPU backend.
//!
//! Kernels are plain functions over typed slices; each file is named after its op.

pub mod conv;
pub mod gemm;

#[cfg(test)]
pub(crate) mod test_util;
