//! The decoder of a transformer.

use super::attention::{AttentionMasks, MultiHeadAttention};
use super::dropout::Dropout;
use super::layer_norm::LayerNorm;
use super::linear::Linear;
use crate::Module;
use crate::describe::printed;
use ferrograd_autograd::{Activation, Var};

/// One layer of a transformer's decoder, A. Vaswani et al. 2017: self-attention, attention to the encoder's output (the
/// memory), then a network of two linear layers, each with dropout, a residual connection and layer norm.
/// `[B, Tt, d_model]` → the same (PyTorch's `batch_first=True`).
///
/// Parameters: `self_attn.…`, `multihead_attn.…`, `linear1.…` `[dim_feedforward, d_model]`, `linear2.…`, `norm1.…`,
/// `norm2.…`, `norm3.…`.
#[derive(Module)]
#[module(extra_repr)]
pub struct TransformerDecoderLayer {
    /// The self-attention.
    pub self_attn: MultiHeadAttention,
    /// The attention to the memory.
    pub multihead_attn: MultiHeadAttention,
    /// The first linear layer of the network.
    pub linear1: Linear,
    dropout: Dropout,
    /// The second linear layer of the network.
    pub linear2: Linear,
    /// The norm at the self-attention.
    pub norm1: LayerNorm,
    /// The norm at the attention to the memory.
    pub norm2: LayerNorm,
    /// The norm at the network.
    pub norm3: LayerNorm,
    dropout1: Dropout,
    dropout2: Dropout,
    dropout3: Dropout,
    activation: Activation,
    norm_first: bool,
}
printed!(TransformerDecoderLayer, TransformerDecoder);

impl TransformerDecoderLayer {
    /// A network 2048 wide, dropout 0.1, ReLU, post-norm.
    #[track_caller]
    pub fn new(d_model: usize, nhead: usize) -> TransformerDecoderLayer {
        TransformerDecoderLayer {
            self_attn: MultiHeadAttention::new(d_model, nhead).dropout(0.1),
            multihead_attn: MultiHeadAttention::new(d_model, nhead).dropout(0.1),
            linear1: Linear::new(d_model, 2048),
            dropout: Dropout::new(0.1),
            linear2: Linear::new(2048, d_model),
            norm1: LayerNorm::new(d_model),
            norm2: LayerNorm::new(d_model),
            norm3: LayerNorm::new(d_model),
            dropout1: Dropout::new(0.1),
            dropout2: Dropout::new(0.1),
            dropout3: Dropout::new(0.1),
            activation: Activation::Relu,
            norm_first: false,
        }
    }
    /// The width of the network. Draws fresh parameters for it.
    pub fn dim_feedforward(mut self, width: usize) -> TransformerDecoderLayer {
        let d_model = self.linear1.in_features();
        self.linear1 = Linear::new(d_model, width);
        self.linear2 = Linear::new(width, d_model);
        self
    }
    /// Dropout of the attention weights, inside the network and before each residual connection.
    #[track_caller]
    pub fn dropout(mut self, p: f64) -> TransformerDecoderLayer {
        self.self_attn = self.self_attn.dropout(p);
        self.multihead_attn = self.multihead_attn.dropout(p);
        [self.dropout, self.dropout1, self.dropout2, self.dropout3] = [p; 4].map(Dropout::new);
        self
    }
    /// The nonlinearity between the linear layers.
    pub fn activation(mut self, activation: Activation) -> TransformerDecoderLayer {
        self.activation = activation;
        self
    }
    /// Pre-norm or post-norm, as in [`TransformerEncoderLayer`](super::TransformerEncoderLayer).
    pub fn norm_first(mut self, norm_first: bool) -> TransformerDecoderLayer {
        self.norm_first = norm_first;
        self
    }
    /// What the norms add to the variance.
    pub fn layer_norm_eps(mut self, eps: f64) -> TransformerDecoderLayer {
        self.norm1 = self.norm1.eps(eps);
        self.norm2 = self.norm2.eps(eps);
        self.norm3 = self.norm3.eps(eps);
        self
    }
    /// `tgt` `[B, Tt, d_model]` and `memory` `[B, Tm, d_model]` → `[B, Tt, d_model]`. Usually `tgt_masks` is causal.
    ///
    /// # Panics
    /// If a shape does not fit.
    #[track_caller]
    pub fn forward(&self, tgt: &Var, memory: &Var, tgt_masks: &AttentionMasks, memory_masks: &AttentionMasks) -> Var {
        if self.norm_first {
            let (normed, x) = self.norm2.forward_add(&self.attend(&self.norm1.forward(tgt), tgt_masks), tgt);
            let (normed, x) = self.norm3.forward_add(&self.look(&normed, memory, memory_masks), &x);
            x + self.feed_forward(&normed)
        } else {
            let (x, _) = self.norm1.forward_add(&self.attend(tgt, tgt_masks), tgt);
            let (x, _) = self.norm2.forward_add(&self.look(&x, memory, memory_masks), &x);
            self.norm3.forward_add(&self.feed_forward(&x), &x).0
        }
    }
    #[track_caller]
    fn attend(&self, x: &Var, masks: &AttentionMasks) -> Var {
        self.dropout1.forward(&self.self_attn.self_attention(x, masks))
    }
    #[track_caller]
    fn look(&self, x: &Var, memory: &Var, masks: &AttentionMasks) -> Var {
        self.dropout2.forward(&self.multihead_attn.forward(x, memory, memory, masks))
    }
    #[track_caller]
    fn feed_forward(&self, x: &Var) -> Var {
        let inner = self.dropout.forward(&self.linear1.forward(x).activate(self.activation));
        self.dropout3.forward(&self.linear2.forward(&inner))
    }
    fn extra_repr(&self) -> String {
        format!("norm_first={}", self.norm_first)
    }
}

/// Decoder layers on top of each other, and a norm at the end if one is given.
///
/// Parameters: `layers.0.…`, …, `norm.…`. Unlike PyTorch's, the layers do not start as copies of one.
#[derive(Module)]
pub struct TransformerDecoder {
    /// The layers, the first one first.
    pub layers: Vec<TransformerDecoderLayer>,
    /// What is applied at the end.
    pub norm: Option<LayerNorm>,
}

impl TransformerDecoder {
    /// As many layers as `num_layers` says, each made by `layer`.
    pub fn new(num_layers: usize, layer: impl Fn() -> TransformerDecoderLayer) -> TransformerDecoder {
        TransformerDecoder { layers: (0..num_layers).map(|_| layer()).collect(), norm: None }
    }
    /// With a norm at the end, as pre-norm layers need.
    pub fn norm(mut self, norm: LayerNorm) -> TransformerDecoder {
        self.norm = Some(norm);
        self
    }
    /// `tgt` `[B, Tt, d_model]` and `memory` `[B, Tm, d_model]` → `[B, Tt, d_model]`; every layer has the same masks.
    #[track_caller]
    pub fn forward(&self, tgt: &Var, memory: &Var, tgt_masks: &AttentionMasks, memory_masks: &AttentionMasks) -> Var {
        let mut x = tgt.clone();
        for layer in &self.layers {
            x = layer.forward(&x, memory, tgt_masks, memory_masks);
        }
        match &self.norm {
            Some(norm) => norm.forward(&x),
            None => x,
        }
    }
}
