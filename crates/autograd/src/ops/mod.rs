//! The derivatives: one file per op, each a [`Function`](crate::Function) and the `Var` method that applies it.

mod activation;
mod arithmetic;
mod attention;
mod cast;
mod composition;
mod dropout;
mod exponential;
mod extremum;
mod gru;
mod identity;
mod joining;
mod lstm;
mod matmul;
mod power;
mod recurrence;
mod rnn;
mod rounding;
mod section;
mod selection;
mod sum;
mod trigonometry;
mod unary;
mod view;

pub use attention::AttentionOptions;
pub use ferrograd_tensor::ops::recurrence::SequenceOptions;
pub use ferrograd_tensor::ops::rnn::RnnNonlinearity;
pub use gru::{GruWeights, gru};
pub(crate) use identity::identity;
pub use lstm::{LstmWeights, lstm};
pub use rnn::{RnnWeights, rnn};
