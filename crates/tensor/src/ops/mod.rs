//! The op floor: each op checks shapes and dtypes, then hands over to the device's backend. One file per op.

pub mod arithmetic;
pub mod attention;
pub mod cat;
pub mod compare;
pub mod dropout;
pub mod elementwise;
pub mod gru;
pub mod lstm;
pub mod matmul;
pub mod pad;
pub mod recurrence;
pub mod reduce;
pub mod repeat;
pub mod rnn;
pub mod section;
pub mod triangle;
