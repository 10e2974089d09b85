//! The op floor: each op checks shapes and dtypes, then hands over to the device's backend. One file per op.

pub mod arithmetic;
pub mod batch_norm;
pub mod cat;
pub mod compare;
pub mod cross_entropy;
pub mod dropout;
pub mod elementwise;
pub mod group_norm;
pub mod layer_norm;
pub mod linear;
pub mod matmul;
pub mod pad;
pub mod reduce;
pub mod repeat;
pub mod rms_norm;
pub mod section;
pub mod softmax;
pub mod triangle;
