//! Models: GPT, BERT, LSTM, the 2017 Transformer and a CNN, each from a configuration that serialises with serde, with
//! the parameter names under which weights are published.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

// `#[derive(Module)]` writes `::ferrograd::nn::…`.
extern crate ferrograd_nn as ferrograd;

pub mod bert;
pub mod cnn;
pub mod gpt;
pub mod lstm;
mod pretrained;
pub mod transformer;

pub use bert::{
    Bert, BertConfig, BertForMaskedLm, BertForNextSentence, BertForSequenceClassification, BertForTokenClassification,
    BertOutput,
};
pub use cnn::{Cnn, CnnConfig};
pub use gpt::{Gpt, GptConfig, KvCache, Sampling};
pub use lstm::{LstmClassifier, LstmClassifierConfig, LstmLm, LstmLmConfig};
pub use transformer::{Transformer, TransformerConfig, sinusoidal_positions};
