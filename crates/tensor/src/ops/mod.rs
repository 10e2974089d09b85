//! The op floor: each op checks shapes and dtypes, then hands over to the device's backend. One file per op.

pub mod arithmetic;
pub mod attention;
pub mod cat;
pub mod compare;
pub mod cumsum;
pub mod dropout;
pub mod einsum;
pub mod elementwise;
pub mod gru;
pub mod index;
pub mod logsumexp;
pub mod lstm;
pub mod matmul;
pub mod norm;
pub mod pad;
pub mod recurrence;
pub mod reduce;
pub mod repeat;
pub mod rnn;
pub mod section;
pub mod sort;
pub mod triangle;
pub mod var;
