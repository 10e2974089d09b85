//! The op floor: each op checks shapes and dtypes, then hands over to the device's backend. One file per op.

pub mod arithmetic;
pub mod compare;
pub mod conv;
pub mod elementwise;
pub mod interpolate;
pub mod matmul;
pub mod pool;
pub mod reduce;
