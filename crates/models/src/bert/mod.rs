//! BERT: bidirectional encoder representations from Transformers. Devlin, Chang, Lee, Toutanova 2018, arXiv:1810.04805.
//!
//! ```text
//! x₀ = LayerNorm(word[token] + position[t] + token_type[segment])
//! a  = LayerNorm(x + softmax(Q Kᵀ / √D) V W_oᵀ)            in every layer: attention,
//! x  = LayerNorm(a + gelu(a W₁ᵀ + b₁) W₂ᵀ + b₂)             then the feed-forward part
//! pooled = tanh(x[:, 0] Wᵀ + b)                              the first token stands for the sequence
//! ```
//!
//! Parameters have Hugging Face's names, and [`Bert::from_pretrained`] reads a folder as published there.

mod config;
mod embeddings;
mod encoder;
mod heads;

pub use config::BertConfig;
pub use embeddings::BertEmbeddings;
pub use encoder::{
    BertAttention, BertEncoder, BertIntermediate, BertLayer, BertPooler, BertSelfAttention, BertSublayerOutput,
};
pub use heads::{
    BertForMaskedLm, BertForNextSentence, BertForSequenceClassification, BertForTokenClassification, BertLmHead,
    BertLmHeads, BertNextSentenceHead, BertPredictionTransform,
};

use crate::pretrained;
use ferrograd_autograd::Var;
use ferrograd_nn::{LoadReport, Module};
use ferrograd_tensor::{Result, Tensor, ensure};
use std::path::Path;

/// The encoder without a task: tokens → a vector for each token, and one for the sequence.
#[derive(Module)]
pub struct Bert {
    /// From tokens to vectors.
    pub embeddings: BertEmbeddings,
    /// The layers.
    pub encoder: BertEncoder,
    /// The sequence's vector; the token-level heads go without it.
    pub pooler: Option<BertPooler>,
}

/// What [`Bert::forward`] computes.
#[derive(Clone, Debug)]
pub struct BertOutput {
    /// The last layer's hidden states, `[B, T, C]`.
    pub last_hidden_state: Var,
    /// The sequence's vector, `[B, C]`, if the model has a pooler.
    pub pooler_output: Option<Var>,
}

impl Bert {
    /// A model with random weights: matrices `N(0, initializer_range²)`, biases 0.
    ///
    /// # Errors
    /// See [`BertConfig::check`].
    pub fn new(config: &BertConfig) -> Result<Self> {
        let pooler = BertPooler::new(config);
        initialise(&pooler, config);
        Ok(Bert { pooler: Some(pooler), ..Bert::without_pooler(config)? })
    }
    /// [`new`](Bert::new) without the pooler.
    ///
    /// # Errors
    /// See [`BertConfig::check`].
    pub fn without_pooler(config: &BertConfig) -> Result<Self> {
        config.check()?;
        let model = Bert { embeddings: BertEmbeddings::new(config), encoder: BertEncoder::new(config), pooler: None };
        initialise(&model, config);
        Ok(model)
    }

    /// Tokens `[B, T]` of i64 → hidden states `[B, T, C]` and pooled `[B, C]`.
    ///
    /// - `token_type_ids` `[B, T]` of i64: the segment of each token; none: all 0.
    /// - `attention_mask` `[B, T]` of any dtype: 0 for padding, which nobody attends to; none: no padding.
    ///
    /// # Panics
    /// If the shapes do not agree, the sequence is longer than `max_position_embeddings`, or a token or segment does
    /// not exist.
    #[track_caller]
    pub fn forward(
        &self,
        input_ids: &Tensor,
        token_type_ids: Option<&Tensor>,
        attention_mask: Option<&Tensor>,
    ) -> BertOutput {
        let x = self.embeddings.forward(input_ids, token_type_ids);
        let mask = attention_mask.map(|mask| {
            ensure!(
                mask.shape() == input_ids.shape(),
                Shape,
                "Bert",
                "tokens are {}, their attention_mask {}",
                input_ids.shape(),
                mask.shape()
            );
            mask.ne_scalar(0.0).unsqueeze(1).unsqueeze(1) // [B, 1, 1, T]: the same for every head and query
        });
        let last_hidden_state = self.encoder.forward(&x, mask.as_ref());
        let pooler_output = self.pooler.as_ref().map(|p| p.forward(&last_hidden_state));
        BertOutput { last_hidden_state, pooler_output }
    }
}

/// Matrices from `N(0, initializer_range²)`, biases 0, the padding token's row 0; norms stay at 1 and 0.
fn initialise<M: Module>(model: &M, config: &BertConfig) {
    for (name, p) in model.named_parameters() {
        let t = p.tensor();
        match t.rank() {
            2 => p.set(Tensor::normal(t.shape(), 0.0, config.initializer_range)),
            _ if name.ends_with("bias") => p.set(t.zeros_like()),
            _ => {}
        }
        if let (Some(pad), true) = (config.pad_token_id, name.ends_with("word_embeddings.weight")) {
            let mut rows = Tensor::ones([config.vocab_size, 1]).to_vec::<f32>();
            rows[pad] = 0.0;
            p.set(p.tensor() * Tensor::from_vec(rows, [config.vocab_size, 1]));
        }
    }
}

/// The inherent constructors that read published weights, for each model here.
macro_rules! from_pretrained {
    ($($model:ident)*) => {$(
        impl $model {
            /// The published model in `folder`: its `config.json` and `model.safetensors` (or the shards that
            /// `model.safetensors.index.json` lists). Comes out in evaluation mode.
            ///
            /// Names count with or without the prefix `bert.`; old names (`gamma`, `beta`) and the old buffer
            /// `embeddings.position_ids` are understood. The report says which parameters keep their random start
            /// (a head that the file lacks) and which of the file's have no place here.
            ///
            /// # Errors
            /// If a file cannot be read, the config describes another architecture, a tensor has another shape than
            /// the config says, or none of the names fit.
            pub fn from_pretrained(folder: impl AsRef<Path>) -> Result<(Self, LoadReport)> {
                let folder = folder.as_ref();
                let config = BertConfig::from_file(folder.join("config.json"))?;
                let state = pretrained::read_folder(folder)?;
                pretrained::load(Self::new(&config)?, state, "bert.", folder)
            }
            /// [`from_pretrained`](Self::from_pretrained) from a config and a safetensors file.
            ///
            /// # Errors
            /// As there.
            pub fn from_safetensors(config: &BertConfig, weights: impl AsRef<Path>) -> Result<(Self, LoadReport)> {
                let weights = weights.as_ref();
                let state = pretrained::read_file(weights)?;
                pretrained::load(Self::new(config)?, state, "bert.", weights)
            }
        }
    )*};
}
from_pretrained!(Bert BertForMaskedLm BertForNextSentence BertForSequenceClassification BertForTokenClassification);
