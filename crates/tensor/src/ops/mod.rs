//! The op floor: each op checks shapes and dtypes, then hands over to the device's backend. One file per op.

pub mod arithmetic;
pub mod compare;
pub mod cumsum;
pub mod einsum;
pub mod elementwise;
pub mod index;
pub mod logsumexp;
pub mod matmul;
pub mod norm;
pub mod reduce;
pub mod sort;
pub mod var;
