//! The layers, one file each.
//!
//! Names, defaults and formulas are PyTorch's, unless a layer says otherwise. A layer is built with its defaults by `new`
//! and changed by methods: `Conv2d::new(3, 16, 3).stride(2).padding(1).bias(false)`.

/// A layer prints as [`Module::describe`](crate::Module::describe) says, and its `forward` is [`Layer`](crate::Layer)'s.
macro_rules! layer {
    ($layer:ident) => {
        layer_with!($layer, |layer, x| $layer::forward(layer, x));
    };
}
/// The same for a layer whose `forward` has more arguments.
macro_rules! layer_with {
    ($layer:ident, |$self:ident, $x:ident| $forward:expr) => {
        $crate::describe::printed!($layer);
        impl $crate::Layer for $layer {
            #[track_caller]
            fn forward(&self, $x: &ferrograd_autograd::Var) -> ferrograd_autograd::Var {
                let $self = self;
                $forward
            }
        }
    };
}

mod activation;
mod attention;
mod batch_norm;
mod conv1d;
mod conv2d;
mod conv_transpose2d;
mod dropout;
mod embedding;
mod flatten;
mod gated_mlp;
mod group_norm;
mod gru;
mod layer_norm;
mod linear;
mod lstm;
mod pair;
mod pool;
mod recurrent;
mod rms_norm;
mod rnn;
mod rotary_embedding;
mod sequential;
mod transformer_decoder;
mod transformer_encoder;

pub use activation::{
    Activation, Elu, Gelu, Identity, LeakyRelu, LogSoftmax, Relu, Sigmoid, Silu, Softmax, Softplus, Tanh,
};
pub use attention::{AttentionMasks, AttentionWeights, MultiHeadAttention};
pub use batch_norm::{BatchNorm1d, BatchNorm2d};
pub use conv_transpose2d::ConvTranspose2d;
pub use conv1d::Conv1d;
pub use conv2d::Conv2d;
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use flatten::Flatten;
pub use gated_mlp::GatedMlp;
pub use group_norm::GroupNorm;
pub use gru::Gru;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use lstm::Lstm;
pub use pair::Pair;
pub use pool::{
    AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveMaxPool1d, AdaptiveMaxPool2d, AvgPool1d, AvgPool2d, MaxPool1d,
    MaxPool2d,
};
pub use recurrent::{Last, Recurrent};
pub use rms_norm::RmsNorm;
pub use rnn::Rnn;
pub use rotary_embedding::RotaryEmbedding;
pub use sequential::Sequential;
pub use transformer_decoder::{TransformerDecoder, TransformerDecoderLayer};
pub use transformer_encoder::{TransformerEncoder, TransformerEncoderLayer};
