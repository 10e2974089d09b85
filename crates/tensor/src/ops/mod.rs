//! The op floor: each op checks shapes and dtypes, then hands over to the device's backend. One file per op.

pub mod arithmetic;
pub mod batch_norm;
pub mod compare;
pub mod cross_entropy;
pub mod elementwise;
pub mod group_norm;
pub mod layer_norm;
pub mod linear;
pub mod matmul;
pub mod reduce;
pub mod rms_norm;
pub mod softmax;
