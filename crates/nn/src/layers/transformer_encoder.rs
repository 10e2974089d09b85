//! The encoder of a transformer.

use super::attention::{AttentionMasks, MultiHeadAttention};
use super::dropout::Dropout;
use super::layer_norm::LayerNorm;
use super::linear::Linear;
use crate::Module;
use ferrograd_autograd::{Activation, Var};

/// One layer of a transformer's encoder, A. Vaswani et al. 2017: self-attention, then a network of two linear layers, each
/// with dropout, a residual connection and layer norm. `[B, T, d_model]` → the same (PyTorch's `batch_first=True`).
///
/// Post-norm: `x ← norm(x + f(x))`. Pre-norm (`norm_first`, R. Xiong et al. 2020): `x ← x + f(norm(x))`.
///
/// Parameters: `self_attn.…`, `linear1.…` `[dim_feedforward, d_model]`, `linear2.…`, `norm1.…`, `norm2.…`.
#[derive(Module)]
#[module(extra_repr)]
pub struct TransformerEncoderLayer {
    /// The self-attention.
    pub self_attn: MultiHeadAttention,
    /// The first linear layer of the network.
    pub linear1: Linear,
    dropout: Dropout,
    /// The second linear layer of the network.
    pub linear2: Linear,
    /// The norm at the self-attention.
    pub norm1: LayerNorm,
    /// The norm at the network.
    pub norm2: LayerNorm,
    dropout1: Dropout,
    dropout2: Dropout,
    activation: Activation,
    norm_first: bool,
}
layer_with!(TransformerEncoderLayer, |layer, x| layer.forward(x, &AttentionMasks::default()));

impl TransformerEncoderLayer {
    /// A network 2048 wide, dropout 0.1, ReLU, post-norm.
    #[track_caller]
    pub fn new(d_model: usize, nhead: usize) -> TransformerEncoderLayer {
        TransformerEncoderLayer {
            self_attn: MultiHeadAttention::new(d_model, nhead).dropout(0.1),
            linear1: Linear::new(d_model, 2048),
            dropout: Dropout::new(0.1),
            linear2: Linear::new(2048, d_model),
            norm1: LayerNorm::new(d_model),
            norm2: LayerNorm::new(d_model),
            dropout1: Dropout::new(0.1),
            dropout2: Dropout::new(0.1),
            activation: Activation::Relu,
            norm_first: false,
        }
    }
    /// The width of the network. Draws fresh parameters for it.
    pub fn dim_feedforward(mut self, width: usize) -> TransformerEncoderLayer {
        let d_model = self.linear1.in_features();
        self.linear1 = Linear::new(d_model, width);
        self.linear2 = Linear::new(width, d_model);
        self
    }
    /// Dropout of the attention weights, inside the network and before each residual connection.
    #[track_caller]
    pub fn dropout(mut self, p: f64) -> TransformerEncoderLayer {
        self.self_attn = self.self_attn.dropout(p);
        [self.dropout, self.dropout1, self.dropout2] = [p; 3].map(Dropout::new);
        self
    }
    /// The nonlinearity between the linear layers.
    pub fn activation(mut self, activation: Activation) -> TransformerEncoderLayer {
        self.activation = activation;
        self
    }
    /// Pre-norm or post-norm.
    pub fn norm_first(mut self, norm_first: bool) -> TransformerEncoderLayer {
        self.norm_first = norm_first;
        self
    }
    /// What the norms add to the variance.
    pub fn layer_norm_eps(mut self, eps: f64) -> TransformerEncoderLayer {
        self.norm1 = self.norm1.eps(eps);
        self.norm2 = self.norm2.eps(eps);
        self
    }
    /// `[B, T, d_model]` → the same.
    ///
    /// # Panics
    /// If a shape does not fit.
    #[track_caller]
    pub fn forward(&self, src: &Var, masks: &AttentionMasks) -> Var {
        if self.norm_first {
            let (normed, x) = self.norm2.forward_add(&self.attend(&self.norm1.forward(src), masks), src);
            x + self.feed_forward(&normed)
        } else {
            let (x, _) = self.norm1.forward_add(&self.attend(src, masks), src);
            self.norm2.forward_add(&self.feed_forward(&x), &x).0
        }
    }
    #[track_caller]
    fn attend(&self, x: &Var, masks: &AttentionMasks) -> Var {
        self.dropout1.forward(&self.self_attn.self_attention(x, masks))
    }
    #[track_caller]
    fn feed_forward(&self, x: &Var) -> Var {
        let inner = self.dropout.forward(&self.linear1.forward(x).activate(self.activation));
        self.dropout2.forward(&self.linear2.forward(&inner))
    }
    fn extra_repr(&self) -> String {
        format!("norm_first={}", self.norm_first)
    }
}

/// Encoder layers on top of each other, and a norm at the end if one is given.
///
/// ```
/// use ferrograd_nn::{LayerNorm, TransformerEncoder, TransformerEncoderLayer};
/// let layer = || TransformerEncoderLayer::new(16, 4).dim_feedforward(32).norm_first(true);
/// let encoder = TransformerEncoder::new(2, layer).norm(LayerNorm::new(16));
/// # let _ = encoder;
/// ```
///
/// Parameters: `layers.0.…`, …, `norm.…`. Unlike PyTorch's, the layers do not start as copies of one.
#[derive(Module)]
pub struct TransformerEncoder {
    /// The layers, the first one first.
    pub layers: Vec<TransformerEncoderLayer>,
    /// What is applied at the end.
    pub norm: Option<LayerNorm>,
}
layer_with!(TransformerEncoder, |encoder, x| encoder.forward(x, &AttentionMasks::default()));

impl TransformerEncoder {
    /// As many layers as `num_layers` says, each made by `layer`.
    pub fn new(num_layers: usize, layer: impl Fn() -> TransformerEncoderLayer) -> TransformerEncoder {
        TransformerEncoder { layers: (0..num_layers).map(|_| layer()).collect(), norm: None }
    }
    /// With a norm at the end, as pre-norm layers need.
    pub fn norm(mut self, norm: LayerNorm) -> TransformerEncoder {
        self.norm = Some(norm);
        self
    }
    /// `[B, T, d_model]` → the same; every layer has the same masks.
    #[track_caller]
    pub fn forward(&self, src: &Var, masks: &AttentionMasks) -> Var {
        let mut x = src.clone();
        for layer in &self.layers {
            x = layer.forward(&x, masks);
        }
        match &self.norm {
            Some(norm) => norm.forward(&x),
            None => x,
        }
    }
}
