//! The op floor: each op checks shapes and dtypes, then hands over to the device's backend. One file per op.

pub mod arithmetic;
pub mod compare;
pub mod elementwise;
pub mod matmul;
pub mod optimizer;
pub mod reduce;
