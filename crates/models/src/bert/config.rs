//! What a BERT is made of: Hugging Face's `config.json`.

use ferrograd_tensor::{Activation, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Nonlinearities under Hugging Face's names.
mod by_name {
    use ferrograd_tensor::Activation;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(f: &Activation, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match f {
            Activation::Identity => "linear",
            Activation::GeluTanh => "gelu_new",
            f => f.name(),
        })
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Activation, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The sizes and settings of a [`Bert`](super::Bert), under the names of Hugging Face's `config.json`.
///
/// Fields that are absent take the value of BERT-base (uncased), as Hugging Face does; fields that are not listed here
/// are ignored.
///
/// ```
/// use ferrograd_models::BertConfig;
/// let config: BertConfig = serde_json::from_str(r#"{"hidden_size": 384, "num_hidden_layers": 6, "use_cache": true}"#).unwrap();
/// assert_eq!((config.hidden_size, config.vocab_size), (384, 30522));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// The architecture; anything but `bert` is refused by [`check`](BertConfig::check).
    pub model_type: String,
    /// Number of tokens, `V`.
    pub vocab_size: usize,
    /// Width of the hidden states, `C`.
    pub hidden_size: usize,
    /// Number of encoder layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads, `H`; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Nonlinearity of the feed-forward part and of the masked language model's head, by Hugging Face's names: `gelu` (by `erf`),
    /// `gelu_new` (also `gelu_pytorch_tanh`), `relu`, `silu` (also `swish`), `tanh` and so on.
    #[serde(with = "by_name")]
    pub hidden_act: Activation,
    /// ε of every layer norm.
    pub layer_norm_eps: f64,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// Number of segments (sentence A, sentence B).
    pub type_vocab_size: usize,
    /// Dropout of the embeddings and of each sublayer's output, in training.
    pub hidden_dropout_prob: f64,
    /// Dropout of the attention weights, in training.
    pub attention_probs_dropout_prob: f64,
    /// Dropout in front of a classifier; absent: `hidden_dropout_prob`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier_dropout: Option<f64>,
    /// The padding token, whose embedding starts at zero and is not trained.
    pub pad_token_id: Option<usize>,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// Does the masked language model's output matrix share the word embedding?
    pub tie_word_embeddings: bool,
    /// Kind of the position embedding; only `absolute` exists here.
    pub position_embedding_type: String,
    /// A decoder (causal, with cross-attention); refused by [`check`](BertConfig::check).
    pub is_decoder: bool,
    /// Number of classes of the classification heads; see [`labels`](BertConfig::labels).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_labels: Option<usize>,
    /// The classes' names by number, as a published classifier has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id2label: Option<BTreeMap<String, String>>,
}

impl Default for BertConfig {
    fn default() -> Self {
        BertConfig {
            model_type: "bert".into(),
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            classifier_dropout: None,
            pad_token_id: Some(0),
            initializer_range: 0.02,
            tie_word_embeddings: true,
            position_embedding_type: "absolute".into(),
            is_decoder: false,
            num_labels: None,
            id2label: None,
        }
    }
}

impl BertConfig {
    /// BERT-base: 12 layers of width 768, 110 million parameters.
    pub fn base() -> Self {
        Self::default()
    }
    /// BERT-large: 24 layers of width 1024, 340 million parameters.
    pub fn large() -> Self {
        BertConfig {
            hidden_size: 1024,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            intermediate_size: 4096,
            ..Self::default()
        }
    }
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If the file cannot be read, is not such a JSON, or describes something that is not built here.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let config: BertConfig = serde_json::from_str(&text).map_err(|e| Error::format(path.display(), e))?;
        config.check()?;
        Ok(config)
    }
    /// Number of classes: `num_labels`, or as many as `id2label` names, or 2.
    pub fn labels(&self) -> usize {
        self.num_labels.or(self.id2label.as_ref().map(BTreeMap::len)).unwrap_or(2)
    }
    /// Does the config describe a model that is built here?
    ///
    /// # Errors
    /// If the heads do not divide the width, a size is 0, a probability lies outside `[0, 1)`, the padding token is no
    /// token, or the architecture is another one.
    pub fn check(&self) -> Result<()> {
        let rule = |ok: bool, message: &dyn Fn() -> String| match ok {
            true => Ok(()),
            false => Err(Error::format("BertConfig", message())),
        };
        rule(self.model_type == "bert", &|| format!("model_type is {:?}, not \"bert\"", self.model_type))?;
        rule(self.position_embedding_type == "absolute", &|| {
            format!("position_embedding_type is {:?}; only \"absolute\" is supported", self.position_embedding_type)
        })?;
        rule(!self.is_decoder, &|| "is_decoder: only the encoder is supported".into())?;
        for (name, n) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
            ("num_labels", self.labels()),
        ] {
            rule(n > 0, &|| format!("{name} is 0"))?;
        }
        rule(self.hidden_size.is_multiple_of(self.num_attention_heads), &|| {
            format!(
                "hidden_size {} is not divisible by num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            )
        })?;
        for (name, p) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("classifier_dropout", self.classifier_dropout.unwrap_or(0.0)),
        ] {
            rule((0.0..1.0).contains(&p), &|| format!("{name} is {p}, not in [0, 1)"))?;
        }
        rule(self.pad_token_id.is_none_or(|p| p < self.vocab_size), &|| {
            format!("pad_token_id {:?} is not below vocab_size {}", self.pad_token_id, self.vocab_size)
        })
    }
}
