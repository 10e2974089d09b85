//! From tokens to vectors.

use super::BertConfig;
use ferrograd_autograd::Var;
use ferrograd_nn::{Dropout, Embedding, LayerNorm, Module};
use ferrograd_tensor::{DType, Tensor, ensure};

/// `LayerNorm(word[token] + position[t] + token_type[segment])`, with dropout in training.
#[derive(Module)]
pub struct BertEmbeddings {
    /// A vector for each token, `[V, C]`.
    pub word_embeddings: Embedding,
    /// A vector for each place in the sequence, `[max_position_embeddings, C]`.
    pub position_embeddings: Embedding,
    /// A vector for each segment, `[type_vocab_size, C]`.
    pub token_type_embeddings: Embedding,
    /// The norm of their sum.
    #[module(rename = "LayerNorm")]
    pub layer_norm: LayerNorm,
    /// Dropout of the result.
    pub dropout: Dropout,
}

impl BertEmbeddings {
    pub(super) fn new(config: &BertConfig) -> Self {
        let c = config.hidden_size;
        let mut word_embeddings = Embedding::new(config.vocab_size, c);
        if let Some(pad) = config.pad_token_id {
            word_embeddings = word_embeddings.padding_idx(pad);
        }
        BertEmbeddings {
            word_embeddings,
            position_embeddings: Embedding::new(config.max_position_embeddings, c),
            token_type_embeddings: Embedding::new(config.type_vocab_size, c),
            layer_norm: LayerNorm::new([c]).eps(config.layer_norm_eps),
            dropout: Dropout::new(config.hidden_dropout_prob),
        }
    }

    /// Tokens `[B, T]` and their segments `[B, T]` (none: all 0) → `[B, T, C]`.
    ///
    /// # Panics
    /// If the sequence is longer than there are positions, or a token or a segment does not exist.
    #[track_caller]
    pub fn forward(&self, input_ids: &Tensor, token_type_ids: Option<&Tensor>) -> Var {
        ensure!(
            input_ids.rank() == 2 && input_ids.dtype() == DType::I64,
            Shape,
            "Bert",
            "tokens must be [B, T] of i64, got {} of {}",
            input_ids.shape(),
            input_ids.dtype()
        );
        let t = input_ids.dim(1);
        let positions = self.position_embeddings.weight.var();
        ensure!(
            t <= positions.dim(0),
            Value,
            "Bert",
            "the sequence has {t} tokens, the model {} positions (max_position_embeddings)",
            positions.dim(0)
        );
        let segment = match token_type_ids {
            Some(types) => {
                ensure!(
                    types.shape() == input_ids.shape(),
                    Shape,
                    "Bert",
                    "tokens are {}, their segments (token_type_ids) {}",
                    input_ids.shape(),
                    types.shape()
                );
                self.token_type_embeddings.forward(types)
            }
            None => self.token_type_embeddings.weight.var().narrow(0, 0, 1),
        };
        let sum = self.word_embeddings.forward(input_ids) + segment + positions.narrow(0, 0, t);
        self.dropout.forward(&self.layer_norm.forward(&sum))
    }
}
