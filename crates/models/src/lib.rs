//! Models: GPT, BERT, LSTM, the 2017 Transformer and a CNN, each from a configuration that serialises with serde, with
//! the parameter names under which weights are published.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

// `#[derive(Module)]` writes `::ferrograd::nn::…`.
extern crate ferrograd_nn as ferrograd;

pub mod gpt;

pub use gpt::{Gpt, GptConfig, KvCache, Sampling};
