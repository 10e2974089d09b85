//! The op floor: each op checks shapes and dtypes, then hands over to the device's backend. One file per op.

pub mod arithmetic;
pub mod batch_norm;
pub mod cat;
pub mod compare;
pub mod cross_entropy;
pub mod cumsum;
pub mod dropout;
pub mod einsum;
pub mod elementwise;
pub mod group_norm;
pub mod index;
pub mod layer_norm;
pub mod linear;
pub mod logsumexp;
pub mod matmul;
pub mod norm;
pub mod pad;
pub mod reduce;
pub mod repeat;
pub mod rms_norm;
pub mod section;
pub mod softmax;
pub mod sort;
pub mod triangle;
pub mod var;
