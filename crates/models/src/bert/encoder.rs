//! The layers that let the tokens see each other.

use super::BertConfig;
use ferrograd_autograd::{AttentionOptions, Var};
use ferrograd_nn::{Dropout, LayerNorm, Linear, Module, Param};
use ferrograd_tensor::{Activation, Tensor};

/// Multi-head self-attention without its output projection:
/// `softmax(Q Kᵀ / √D) V` for each head, `Q = x W_qᵀ + b_q` and so on.
#[derive(Module)]
pub struct BertSelfAttention {
    /// Projection to the queries.
    pub query: Linear,
    /// Projection to the keys.
    pub key: Linear,
    /// Projection to the values.
    pub value: Linear,
    heads: usize,
    dropout: Dropout,
}

impl BertSelfAttention {
    fn new(config: &BertConfig) -> Self {
        let linear = || Linear::new(config.hidden_size, config.hidden_size);
        BertSelfAttention {
            query: linear(),
            key: linear(),
            value: linear(),
            heads: config.num_attention_heads,
            dropout: Dropout::new(config.attention_probs_dropout_prob),
        }
    }

    /// `[B, T, C]` → `[B, T, C]`; `mask` is boolean, broadcasts to `[B, H, T, T]` and is true where a query may attend.
    #[track_caller]
    pub fn forward(&self, x: &Var, mask: Option<&Tensor>) -> Var {
        let [b, t, c] = x.dims_of("BertSelfAttention");
        let split = |y: Var| y.reshape([b, t, self.heads, c / self.heads]).transpose(1, 2); // [B, H, T, D]
        let (q, k, v) = (split(self.query.forward(x)), split(self.key.forward(x)), split(self.value.forward(x)));
        let options = AttentionOptions { mask: mask.cloned(), dropout: self.dropout.active(), ..Default::default() };
        q.scaled_dot_product_attention(&k, &v, &options).transpose(1, 2).reshape([b, t, c])
    }
}

/// The end of a sublayer: `LayerNorm(residual + dropout(dense(x)))`.
#[derive(Module)]
pub struct BertSublayerOutput {
    /// Projection to the width of the hidden states.
    pub dense: Linear,
    /// The norm after the residual sum.
    #[module(rename = "LayerNorm")]
    pub layer_norm: LayerNorm,
    /// Dropout of the projection.
    pub dropout: Dropout,
}

impl BertSublayerOutput {
    fn new(inputs: usize, config: &BertConfig) -> Self {
        BertSublayerOutput {
            dense: Linear::new(inputs, config.hidden_size),
            layer_norm: LayerNorm::new([config.hidden_size]).eps(config.layer_norm_eps),
            dropout: Dropout::new(config.hidden_dropout_prob),
        }
    }
    #[track_caller]
    fn forward(&self, x: &Var, residual: &Var) -> Var {
        self.add(&self.dense.forward(x), residual)
    }
    /// What comes after the projection.
    #[track_caller]
    fn add(&self, projected: &Var, residual: &Var) -> Var {
        self.layer_norm.forward_add(&self.dropout.forward(projected), residual).0
    }
}

/// Self-attention with its output projection, residual and norm.
#[derive(Module)]
pub struct BertAttention {
    /// The attention itself.
    #[module(rename = "self")]
    pub self_attention: BertSelfAttention,
    /// Projection, residual, norm.
    pub output: BertSublayerOutput,
}

/// The first half of the feed-forward part: `act(x Wᵀ + b)`.
#[derive(Module)]
pub struct BertIntermediate {
    /// Projection to the inner width.
    pub dense: Linear,
    act: Activation,
}

/// One encoder layer, in post-norm order:
///
/// ```text
/// a = LayerNorm(x + Attention(x))
/// y = LayerNorm(a + act(a W₁ᵀ + b₁) W₂ᵀ + b₂)
/// ```
#[derive(Module)]
pub struct BertLayer {
    /// Self-attention with residual and norm.
    pub attention: BertAttention,
    /// The feed-forward part's inner layer.
    pub intermediate: BertIntermediate,
    /// The feed-forward part's outer layer with residual and norm.
    pub output: BertSublayerOutput,
}

impl BertLayer {
    fn new(config: &BertConfig) -> Self {
        BertLayer {
            attention: BertAttention {
                self_attention: BertSelfAttention::new(config),
                output: BertSublayerOutput::new(config.hidden_size, config),
            },
            intermediate: BertIntermediate {
                dense: Linear::new(config.hidden_size, config.intermediate_size),
                act: config.hidden_act,
            },
            output: BertSublayerOutput::new(config.intermediate_size, config),
        }
    }
    /// `[B, T, C]` → `[B, T, C]`; the mask as in [`BertSelfAttention::forward`].
    #[track_caller]
    pub fn forward(&self, x: &Var, mask: Option<&Tensor>) -> Var {
        let attended = self.attention.output.forward(&self.attention.self_attention.forward(x, mask), x);
        let (first, second) = (&self.intermediate.dense, &self.output.dense);
        let weights = [first, second].map(|layer| layer.weight.var());
        let biases = [first, second].map(|layer| layer.bias.as_ref().map(Param::var));
        let biases = biases.each_ref().map(Option::as_ref);
        let y = attended.feed_forward(weights.each_ref(), biases, self.intermediate.act);
        self.output.add(&y, &attended)
    }
}

/// The stack of encoder layers.
#[derive(Module)]
pub struct BertEncoder {
    /// First to last.
    pub layer: Vec<BertLayer>,
}

impl BertEncoder {
    pub(super) fn new(config: &BertConfig) -> Self {
        BertEncoder { layer: (0..config.num_hidden_layers).map(|_| BertLayer::new(config)).collect() }
    }
    /// `[B, T, C]` → `[B, T, C]`; the mask as in [`BertSelfAttention::forward`].
    #[track_caller]
    pub fn forward(&self, x: &Var, mask: Option<&Tensor>) -> Var {
        self.layer.iter().fold(x.clone(), |x, layer| layer.forward(&x, mask))
    }
}

/// The first token's hidden state, through one more layer: `tanh(h₀ Wᵀ + b)`.
#[derive(Module)]
pub struct BertPooler {
    /// The layer.
    pub dense: Linear,
}

impl BertPooler {
    pub(super) fn new(config: &BertConfig) -> Self {
        BertPooler { dense: Linear::new(config.hidden_size, config.hidden_size) }
    }
    /// `[B, T, C]` → `[B, C]`.
    #[track_caller]
    pub fn forward(&self, hidden: &Var) -> Var {
        self.dense.forward(&hidden.select(1, 0)).tanh()
    }
}
