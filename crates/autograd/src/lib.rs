//! Automatic differentiation: how a value came about, and what follows for its derivative.
//!
//! A [`Var`] is a [`Tensor`](ferrograd_tensor::Tensor) with the history of how it was made. Every operation, ours or a
//! user's, is a [`Function`]: a forward on tensors and a backward on `Var`s, so that a derivative has a history itself
//! and can be differentiated again. This crate knows no layer.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod checkpoint;
mod engine;
mod function;
mod gradcheck;
mod gradients;
mod mode;
mod node;
pub mod ops;
mod var;

pub use checkpoint::checkpoint;
pub use engine::{GradOptions, grad, grad_with};
pub use function::{Derivative, Function, Saved};
pub use gradcheck::{GradcheckOptions, gradcheck, gradcheck_with, gradgradcheck, gradgradcheck_with};
pub use gradients::{Gradients, Key, Keyed};
pub use mode::{autocast, autocast_dtype, detect_anomaly, enable_grad, is_grad_enabled, no_grad};
pub use node::{Leaf, Node};
pub use ops::{
    AttentionOptions, GruWeights, LstmWeights, RnnNonlinearity, RnnWeights, SequenceOptions, gru, lstm, rnn,
};
pub use var::Var;

pub use ferrograd_tensor::{
    Activation, Conv1dOptions, Conv2dOptions, ConvTranspose2dOptions, CrossEntropy, Interpolation, Pool1dOptions,
    Pool2dOptions, Reduction, RotaryPairs,
};
