//! The encoder–decoder of "Attention Is All You Need": Vaswani et al. 2017, arXiv:1706.03762.
//!
//! ```text
//! PE(pos, 2i) = sin(pos / 10000^(2i/C))      PE(pos, 2i+1) = cos(pos / 10000^(2i/C))
//! embed(x)    = E[x] √C + PE
//! encoder:  a = LayerNorm(x + Attention(x, x))                  every source token sees every other
//!           y = LayerNorm(a + W₂ relu(W₁ a))
//! decoder:  a = LayerNorm(x + Attention(x, x))                  causal: a token sees those before it
//!           b = LayerNorm(a + Attention(a, memory))             … and the encoder's output
//!           y = LayerNorm(b + W₂ relu(W₁ b))
//! p(next target token) = softmax(y Wᵀ + b)
//! ```
//!
//! Layers are post-norm with one more norm after each stack, and parameters have the names of PyTorch's
//! `nn.Transformer`.

use ferrograd_autograd::{CrossEntropy, Var, no_grad};
use ferrograd_nn::{
    AttentionMasks, Dropout, Embedding, LayerNorm, Linear, Module, TransformerDecoder, TransformerDecoderLayer,
    TransformerEncoder, TransformerEncoderLayer, init,
};
use ferrograd_tensor::{Error, Result, Tensor, ensure};
use serde::{Deserialize, Serialize};

/// The sizes of a [`Transformer`]; the defaults are the paper's base model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformerConfig {
    /// Number of source tokens.
    pub src_vocab_size: usize,
    /// Number of target tokens.
    pub tgt_vocab_size: usize,
    /// Width C; even.
    pub d_model: usize,
    /// Number of heads; divides C.
    pub nhead: usize,
    /// Layers of the encoder.
    pub num_encoder_layers: usize,
    /// Layers of the decoder.
    pub num_decoder_layers: usize,
    /// Width inside the feed-forward parts.
    pub dim_feedforward: usize,
    /// Dropout of the embeddings, the attention weights and each sublayer's output, in training.
    pub dropout: f64,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// The token that pads both sides, which nobody attends to and no loss is taken of.
    pub pad_token_id: Option<i64>,
    /// One matrix for both embeddings and the output weights (§3.4 of the paper); needs one vocabulary.
    pub share_embeddings: bool,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        TransformerConfig {
            src_vocab_size: 37_000,
            tgt_vocab_size: 37_000,
            d_model: 512,
            nhead: 8,
            num_encoder_layers: 6,
            num_decoder_layers: 6,
            dim_feedforward: 2048,
            dropout: 0.1,
            layer_norm_eps: 1e-5,
            pad_token_id: Some(0),
            share_embeddings: false,
        }
    }
}

impl TransformerConfig {
    /// The paper's big model.
    pub fn big() -> Self {
        TransformerConfig { d_model: 1024, nhead: 16, dim_feedforward: 4096, dropout: 0.3, ..Self::default() }
    }
    /// Are the sizes usable?
    ///
    /// # Errors
    /// If one is zero, the width is odd or not divisible by the heads, the dropout lies outside `[0, 1)`, the padding
    /// token is no token, or embeddings are shared between two vocabularies.
    pub fn check(&self) -> Result<()> {
        let bad = |message: String| Err(Error::format("Transformer configuration", message));
        for (name, n) in [
            ("src_vocab_size", self.src_vocab_size),
            ("tgt_vocab_size", self.tgt_vocab_size),
            ("d_model", self.d_model),
            ("nhead", self.nhead),
            ("dim_feedforward", self.dim_feedforward),
        ] {
            if n == 0 {
                return bad(format!("{name} is 0"));
            }
        }
        if !self.d_model.is_multiple_of(2) || !self.d_model.is_multiple_of(self.nhead) {
            return bad(format!("d_model {} must be even and divisible by nhead {}", self.d_model, self.nhead));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return bad(format!("dropout {} lies outside [0, 1)", self.dropout));
        }
        let tokens = self.src_vocab_size.min(self.tgt_vocab_size) as i64;
        if let Some(pad) = self.pad_token_id.filter(|p| !(0..tokens).contains(p)) {
            return bad(format!("pad_token_id {pad} lies outside 0..{tokens}"));
        }
        if self.share_embeddings && self.src_vocab_size != self.tgt_vocab_size {
            return bad(format!(
                "share_embeddings needs one vocabulary, got {} and {} tokens",
                self.src_vocab_size, self.tgt_vocab_size
            ));
        }
        Ok(())
    }
}

/// The two stacks, as `nn.Transformer` names them.
#[derive(Module)]
pub struct Stacks {
    /// The source's layers and their norm.
    pub encoder: TransformerEncoder,
    /// The target's layers and their norm.
    pub decoder: TransformerDecoder,
}

/// The 2017 Transformer. See the [module](self).
#[derive(Module)]
pub struct Transformer {
    /// A vector for each source token.
    pub src_embed: Embedding,
    /// A vector for each target token.
    pub tgt_embed: Embedding,
    /// The layers.
    pub transformer: Stacks,
    /// From the last hidden state to the target vocabulary.
    pub generator: Linear,
    dropout: Dropout,
    #[module(skip)]
    config: TransformerConfig,
}

impl Transformer {
    /// A model with random weights: matrices of the layers Xavier-uniform, embeddings `N(0, 1/C)`.
    ///
    /// # Errors
    /// See [`TransformerConfig::check`].
    pub fn new(config: &TransformerConfig) -> Result<Transformer> {
        config.check()?;
        let c = config.d_model;
        // With the factor √C an embedding enters the first layer with unit variance, as its position does.
        let table = |rows: usize| {
            let embed = Embedding::new(rows, c);
            embed.weight.set(Tensor::normal([rows, c], 0.0, (c as f64).sqrt().recip()));
            embed
        };
        let src_embed = table(config.src_vocab_size);
        let (tgt_embed, generator) = match config.share_embeddings {
            true => {
                let mut generator = Linear::new(c, config.tgt_vocab_size);
                generator.weight = src_embed.weight.clone();
                (Embedding::from_weight(src_embed.weight.clone()), generator)
            }
            false => (table(config.tgt_vocab_size), Linear::new(c, config.tgt_vocab_size)),
        };
        let norm = || LayerNorm::new(c).eps(config.layer_norm_eps);
        let (f, p, eps) = (config.dim_feedforward, config.dropout, config.layer_norm_eps);
        let encoder_layer =
            || TransformerEncoderLayer::new(c, config.nhead).dim_feedforward(f).dropout(p).layer_norm_eps(eps);
        let decoder_layer =
            || TransformerDecoderLayer::new(c, config.nhead).dim_feedforward(f).dropout(p).layer_norm_eps(eps);
        let transformer = Stacks {
            encoder: TransformerEncoder::new(config.num_encoder_layers, encoder_layer).norm(norm()),
            decoder: TransformerDecoder::new(config.num_decoder_layers, decoder_layer).norm(norm()),
        };
        for p in transformer.parameters().into_iter().filter(|p| p.tensor().rank() > 1) {
            p.set(init::xavier_uniform(p.tensor().shape(), 1.0));
        }
        let dropout = Dropout::new(config.dropout);
        Ok(Transformer { src_embed, tgt_embed, transformer, generator, dropout, config: config.clone() })
    }
    /// The sizes it was made with.
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// Source tokens `[B, S]` and the target tokens so far `[B, T]`, both i64 → scores `[B, T, V]` of the token after
    /// each of the target's.
    ///
    /// # Panics
    /// If the shapes do not agree, or a token does not exist.
    #[track_caller]
    pub fn forward(&self, src: &Tensor, tgt: &Tensor) -> Var {
        ensure!(
            src.rank() == 2 && tgt.rank() == 2 && src.dim(0) == tgt.dim(0),
            Shape,
            "Transformer",
            "source and target must be [B, S] and [B, T], got {} and {}",
            src.shape(),
            tgt.shape()
        );
        self.decode(tgt, &self.encode(src), src)
    }
    /// Source tokens `[B, S]` → the memory `[B, S, C]`.
    #[track_caller]
    pub fn encode(&self, src: &Tensor) -> Var {
        self.transformer.encoder.forward(&self.embed(&self.src_embed, src), &self.masks(src))
    }
    /// Target tokens `[B, T]` and the memory of `src` → scores `[B, T, V]`.
    #[track_caller]
    pub fn decode(&self, tgt: &Tensor, memory: &Var, src: &Tensor) -> Var {
        let x = self.embed(&self.tgt_embed, tgt);
        let y = self.transformer.decoder.forward(&x, memory, &self.masks(tgt).causal(), &self.masks(src));
        self.generator.forward(&y)
    }
    /// Mean cross-entropy of scores `[B, T, V]` with the tokens that came, `[B, T]`, without the padding. The paper
    /// trains with `label_smoothing` 0.1.
    #[track_caller]
    pub fn loss(&self, logits: &Var, targets: &Tensor, label_smoothing: f64) -> Var {
        let [b, t, v] = logits.dims_of("Transformer loss");
        let options = CrossEntropy { ignore_index: self.config.pad_token_id, label_smoothing, ..Default::default() };
        logits.reshape([b * t, v]).cross_entropy(&targets.flatten(), &options)
    }

    /// The likeliest continuation of `start`, token by token, for each source `[B, S]`: up to `max_len` tokens, the first
    /// being `start`, until `end`, which is not part of the result.
    ///
    /// Dropout is active unless the model is in [`eval`](Module::eval).
    #[track_caller]
    pub fn greedy(&self, src: &Tensor, start: i64, end: i64, max_len: usize) -> Vec<Vec<i64>> {
        no_grad(|| {
            let memory = self.encode(src);
            let mut rows = vec![vec![start]; src.dim(0)];
            let mut done = vec![false; rows.len()];
            for t in 1..max_len {
                if done.iter().all(|&d| d) {
                    break;
                }
                let tgt = Tensor::from_vec(rows.concat(), [rows.len(), t]).to_device(&src.device());
                let best = self.decode(&tgt, &memory, src).select(1, -1).argmax(-1).to_vec::<i64>();
                for (i, row) in rows.iter_mut().enumerate() {
                    done[i] |= best[i] == end;
                    // Rows that have ended keep their length's pace; what stands there is cut off below.
                    row.push(if done[i] { end } else { best[i] });
                }
            }
            let until_end = |row: Vec<i64>| {
                let length = row.iter().skip(1).position(|&t| t == end).map_or(row.len(), |i| i + 1);
                row[..length].to_vec()
            };
            rows.into_iter().map(until_end).collect()
        })
    }

    /// Nobody attends to the padding among `tokens`.
    fn masks(&self, tokens: &Tensor) -> AttentionMasks {
        match self.config.pad_token_id {
            Some(pad) => AttentionMasks::new().key_padding_mask(&tokens.eq_scalar(pad as f64)),
            None => AttentionMasks::new(),
        }
    }
    /// `E[tokens] √C + PE`, with dropout.
    #[track_caller]
    fn embed(&self, table: &Embedding, tokens: &Tensor) -> Var {
        let x = table.forward(tokens).mul_scalar((self.config.d_model as f64).sqrt());
        let positions = sinusoidal_positions(tokens.dim(1), self.config.d_model);
        let positions = positions.to_dtype(x.dtype()).to_device(&x.device());
        self.dropout.forward(&(x + Var::constant(positions)))
    }
}

/// `PE(pos, 2i) = sin(pos / 10000^(2i/C))`, `PE(pos, 2i+1) = cos(…)`: `[T, C]`, f32.
///
/// ```
/// let pe = ferrograd_models::sinusoidal_positions(3, 4);
/// assert_eq!(pe.select(0, 0).to_vec::<f32>(), [0.0, 1.0, 0.0, 1.0]);
/// ```
pub fn sinusoidal_positions(steps: usize, width: usize) -> Tensor {
    let value = |i: usize| {
        let (pos, d) = ((i / width) as f64, i % width);
        let angle = pos / 10000f64.powf((d - d % 2) as f64 / width as f64);
        (if d % 2 == 0 { angle.sin() } else { angle.cos() }) as f32
    };
    Tensor::from_vec((0..steps * width).map(value).collect(), [steps, width])
}
