//! GPT-2: a decoder-only transformer. Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
//!
//! ```text
//! h₀   = E[token] + P[position]
//! h'ₗ  = hₗ + Attention(LayerNorm(hₗ))          causal, H heads of C/H
//! hₗ₊₁ = h'ₗ + W₂ gelu(W₁ LayerNorm(h'ₗ))
//! p(next token) = softmax(LayerNorm(h_L) Eᵀ)     the output weights are the embedding's
//! ```
//!
//! Parameters have the names of the published checkpoints; their projections are stored `[in, out]`.

use crate::pretrained;
use ferrograd_autograd::{AttentionOptions, CrossEntropy, Var, no_grad};
use ferrograd_nn::{Dropout, Embedding, LayerNorm, LoadReport, Module, Param};
use ferrograd_tensor::{Activation, DType, Error, Result, Tensor, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The sizes of a [`Gpt`], under the names of the published `config.json`; the defaults are GPT-2 124M's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GptConfig {
    /// Number of tokens V.
    pub vocab_size: usize,
    /// Longest sequence T.
    pub n_positions: usize,
    /// Width C.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Number of heads H; divides C.
    pub n_head: usize,
    /// Dropout on the embeddings.
    pub embd_pdrop: f64,
    /// Dropout on what each half of a block adds.
    pub resid_pdrop: f64,
    /// Dropout on the attention weights.
    pub attn_pdrop: f64,
    /// ε of the layer norms.
    pub layer_norm_epsilon: f64,
    /// Biases in projections and layer norms. GPT-2 has them; small models do as well without.
    pub bias: bool,
}

impl Default for GptConfig {
    fn default() -> Self {
        GptConfig {
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            embd_pdrop: 0.1,
            resid_pdrop: 0.1,
            attn_pdrop: 0.1,
            layer_norm_epsilon: 1e-5,
            bias: true,
        }
    }
}

/// What `config.json` may say of the architecture: the fields and their values that mean GPT-2.
const ARCHITECTURE: [(&str, &[&str]); 5] = [
    ("model_type", &["gpt2"]),
    ("activation_function", &["gelu_new", "gelu_pytorch_tanh"]),
    ("scale_attn_weights", &["true"]),
    ("scale_attn_by_inverse_layer_idx", &["false"]),
    ("tie_word_embeddings", &["true"]),
];

impl GptConfig {
    /// Are the sizes usable?
    ///
    /// # Errors
    /// If one is zero, the heads do not divide the width, or a dropout lies outside `[0, 1)`.
    pub fn check(&self) -> Result<()> {
        let bad = |message: String| Err(Error::format("GPT configuration", message));
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
        ];
        for (name, n) in sizes {
            if n == 0 {
                return bad(format!("{name} is 0"));
            }
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            return bad(format!("n_head {} does not divide n_embd {}", self.n_head, self.n_embd));
        }
        for (name, p) in
            [("embd_pdrop", self.embd_pdrop), ("resid_pdrop", self.resid_pdrop), ("attn_pdrop", self.attn_pdrop)]
        {
            if !(0.0..1.0).contains(&p) {
                return bad(format!("{name} {p} lies outside [0, 1)"));
            }
        }
        Ok(())
    }
}

/// `y = x W + b` with W `[in, out]`, as GPT-2's checkpoints store it.
#[derive(Module)]
struct Projection {
    weight: Param,
    bias: Option<Param>,
}

impl Projection {
    fn new(inputs: usize, outputs: usize, std: f64, bias: bool) -> Self {
        Projection {
            weight: Param::new(Tensor::normal([inputs, outputs], 0.0, std)),
            bias: bias.then(|| Param::new(Tensor::zeros([outputs]))),
        }
    }
    /// The weight, the same matrix seen as `[out, in]` (no copy), and the bias.
    fn parameters(&self) -> (Var, Option<Var>) {
        (self.weight.var().t(), self.bias.as_ref().map(Param::var))
    }
    fn forward(&self, x: &Var) -> Var {
        let (weight, bias) = self.parameters();
        x.linear(&weight, bias.as_ref())
    }
}

/// Causal self-attention over H heads.
#[derive(Module)]
struct Attention {
    c_attn: Projection,
    c_proj: Projection,
    resid_dropout: Dropout,
    heads: usize,
    dropout: Dropout,
}

impl Attention {
    /// x `[B, T, C]` → `[B, T, C]`; with a cache, T counts the new positions only.
    fn forward(&self, x: &Var, cache: Option<&mut LayerCache>) -> Var {
        let [b, t, c] = x.dims_of("Gpt attention");
        let heads = |y: &Var| y.reshape([b, t, self.heads, c / self.heads]).transpose(1, 2);
        let qkv = self.c_attn.forward(x).chunk(3, -1);
        let (q, mut k, mut v) = (heads(&qkv[0]), heads(&qkv[1]), heads(&qkv[2]));
        let mut options = AttentionOptions { causal: true, dropout: self.dropout.active(), ..Default::default() };
        if let Some(cache) = cache {
            (k, v) = cache.extend(&k, &v);
            let past = k.dim(2) - t;
            if past > 0 {
                options.causal = false;
                // Query i stands at position past + i.
                let mask = || Tensor::full_on([t, past + t], 1.0, DType::U8, &x.device()).tril(past as isize);
                options.mask = (t > 1).then(|| mask().to_dtype(DType::Bool));
            }
        }
        let y = q.scaled_dot_product_attention(&k, &v, &options);
        let y = self.c_proj.forward(&y.transpose(1, 2).reshape([b, t, c]));
        self.resid_dropout.forward(&y)
    }
}

/// `W₂ gelu(W₁ x)`, four times as wide inside.
#[derive(Module)]
struct Mlp {
    c_fc: Projection,
    c_proj: Projection,
    dropout: Dropout,
}

impl Mlp {
    fn forward(&self, x: &Var) -> Var {
        let [(w1, b1), (w2, b2)] = [&self.c_fc, &self.c_proj].map(Projection::parameters);
        self.dropout.forward(&x.feed_forward([&w1, &w2], [b1.as_ref(), b2.as_ref()], Activation::GeluTanh))
    }
}

#[derive(Module)]
struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn new(c: &GptConfig) -> Self {
        // The residual stream sums 2L branches: scaling each by 1/√(2L) keeps its variance (GPT-2, §2.3).
        let (std, last) = (0.02, 0.02 / (2.0 * c.n_layer as f64).sqrt());
        Block {
            ln_1: norm(c),
            attn: Attention {
                c_attn: Projection::new(c.n_embd, 3 * c.n_embd, std, c.bias),
                c_proj: Projection::new(c.n_embd, c.n_embd, last, c.bias),
                resid_dropout: Dropout::new(c.resid_pdrop),
                heads: c.n_head,
                dropout: Dropout::new(c.attn_pdrop),
            },
            ln_2: norm(c),
            mlp: Mlp {
                c_fc: Projection::new(c.n_embd, 4 * c.n_embd, std, c.bias),
                c_proj: Projection::new(4 * c.n_embd, c.n_embd, last, c.bias),
                dropout: Dropout::new(c.resid_pdrop),
            },
        }
    }
    fn forward(&self, x: &Var, cache: Option<&mut LayerCache>) -> Var {
        let (normed, x) = self.ln_2.forward_add(&self.attn.forward(&self.ln_1.forward(x), cache), x);
        x + self.mlp.forward(&normed)
    }
}

fn norm(c: &GptConfig) -> LayerNorm {
    LayerNorm::new([c.n_embd]).eps(c.layer_norm_epsilon).bias(c.bias)
}

#[derive(Module)]
struct Decoder {
    wte: Embedding,
    wpe: Embedding,
    drop: Dropout,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

/// GPT-2. See the [module](self).
#[derive(Module)]
pub struct Gpt {
    transformer: Decoder,
    #[module(skip)]
    config: GptConfig,
}

impl Gpt {
    /// A model with GPT-2's initialisation: weights N(0, 0.02²), those that end a residual branch scaled by 1/√(2L).
    ///
    /// # Errors
    /// See [`GptConfig::check`].
    pub fn new(config: &GptConfig) -> Result<Gpt> {
        config.check()?;
        let table = |rows| Embedding::from_weight(Param::new(Tensor::normal([rows, config.n_embd], 0.0, 0.02)));
        Ok(Gpt {
            transformer: Decoder {
                wte: table(config.vocab_size),
                wpe: table(config.n_positions),
                drop: Dropout::new(config.embd_pdrop),
                h: (0..config.n_layer).map(|_| Block::new(config)).collect(),
                ln_f: norm(config),
            },
            config: config.clone(),
        })
    }
    /// The sizes it was made with.
    pub fn config(&self) -> &GptConfig {
        &self.config
    }

    /// Tokens `[B, T]` (i64) → logits of the next token `[B, T, V]`.
    #[track_caller]
    pub fn forward(&self, tokens: &Tensor) -> Var {
        self.run(tokens, None)
    }

    /// The mean cross-entropy of `targets` `[B, T]`: the tokens that follow `tokens` at each position. −100 is ignored.
    #[track_caller]
    pub fn loss(&self, tokens: &Tensor, targets: &Tensor) -> Var {
        ensure!(
            tokens.shape() == targets.shape(),
            Shape,
            "Gpt",
            "tokens {} and targets {} differ",
            tokens.shape(),
            targets.shape()
        );
        let logits = self.forward(tokens);
        let v = self.config.vocab_size;
        logits.reshape([tokens.numel(), v]).cross_entropy(&targets.flatten(), &CrossEntropy::default())
    }

    #[track_caller]
    fn run(&self, tokens: &Tensor, mut cache: Option<&mut KvCache>) -> Var {
        let [b, t] = tokens.dims_of("Gpt");
        let past = cache.as_ref().map_or(0, |c| c.len());
        if let Some([keys, _]) = cache.as_ref().and_then(|c| c.layers.first()?.stored.as_ref()) {
            ensure!(
                keys.dim(0) == b,
                Shape,
                "Gpt",
                "tokens {} for a cache of {} sequences",
                tokens.shape(),
                keys.dim(0)
            );
        }
        let limit = self.config.n_positions;
        ensure!(past + t <= limit, Index, "Gpt", "{} positions exceed n_positions {limit}", past + t);
        let positions = Tensor::arange(past as i64, (past + t) as i64, 1).to_device(&tokens.device());
        let m = &self.transformer;
        let mut x = m.drop.forward(&(m.wte.forward(tokens) + m.wpe.forward(&positions)));
        for (i, block) in m.h.iter().enumerate() {
            x = block.forward(&x, cache.as_mut().map(|c| &mut c.layers[i]));
        }
        m.ln_f.forward(&x).linear(&m.wte.weight.var(), None)
    }

    /// New tokens `[B, T]` after those that `cache` has seen → logits `[B, T, V]`, without history.
    #[track_caller]
    pub fn forward_cached(&self, tokens: &Tensor, cache: &mut KvCache) -> Tensor {
        no_grad(|| self.run(tokens, Some(cache))).into_tensor()
    }

    /// `count` tokens that continue `prompt`, drawn one after the other from the model's distribution.
    ///
    /// Dropout is active unless the model is in [`eval`](Module::eval). Past `n_positions` the model sees the last
    /// `n_positions` tokens.
    ///
    /// # Panics
    /// If the prompt is empty or holds a token outside of the vocabulary.
    #[track_caller]
    pub fn generate(&self, prompt: &[i64], count: usize, sampling: &Sampling) -> Vec<i64> {
        ensure!(!prompt.is_empty(), Value, "Gpt::generate", "the prompt is empty");
        let limit = self.config.n_positions;
        let mut tokens = prompt.to_vec();
        let mut cache = KvCache::new(self);
        let device = self.transformer.wte.weight.tensor().device();
        for _ in 0..count {
            // While everything fits, only what the cache has not seen is new; after that the window moves, every
            // position changes, and nothing cached is right any more.
            if tokens.len() > limit {
                cache = KvCache::new(self);
            }
            let window = tokens.len().saturating_sub(limit);
            let new = &tokens[window + cache.len()..];
            let input = Tensor::from_slice(new, [1, new.len()]).to_device(&device);
            let logits = self.forward_cached(&input, &mut cache);
            tokens.push(sampling.draw(&logits.select(0, 0).select(0, -1)));
        }
        tokens.split_off(prompt.len())
    }

    /// The published GPT-2 from a folder with `config.json` and `model.safetensors` (or the shards that
    /// `model.safetensors.index.json` lists), its names with or without `transformer.`. Comes out in evaluation mode.
    ///
    /// # Errors
    /// If a file is missing or damaged, the config describes another architecture, the output weights are not the
    /// embedding's, or a parameter is missing or of another shape.
    pub fn from_pretrained(folder: impl AsRef<Path>) -> Result<(Gpt, LoadReport)> {
        let folder = folder.as_ref();
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::format(path.display(), e))?;
        for (field, supported) in ARCHITECTURE {
            let value = json.get(field).unwrap_or(&serde_json::Value::Null);
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            if !value.is_null() && !supported.contains(&text.as_str()) {
                let message = format!("{field} is {text}; supported: {}", supported.join(", "));
                return Err(Error::format(path.display(), message));
            }
        }
        let config: GptConfig = serde_json::from_value(json).map_err(|e| Error::format(path.display(), e))?;
        let gpt = Gpt::new(&config)?;
        let state = pretrained::read_folder(folder)?;
        let embedding = state.get("wte.weight").or_else(|| state.get("transformer.wte.weight"));
        let same = |a: &Tensor, b: &Tensor| a.shape() == b.shape() && a.eq(b).all().item::<bool>();
        if let (Some(head), Some(embedding)) = (state.get("lm_head.weight"), embedding)
            && !same(head, embedding)
        {
            let message = "lm_head.weight is not wte.weight: only tied output weights are supported";
            return Err(Error::format(folder.display(), message));
        }
        let state = state.rename(|name| {
            let name = name.strip_prefix("transformer.").unwrap_or(name);
            // The causal mask, which older checkpoints store, and the output weights, which are the embedding's.
            let derived =
                name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") || name == "lm_head.weight";
            (!derived).then(|| format!("transformer.{name}"))
        });
        let report = gpt.load_state_dict(&state, true)?;
        gpt.eval();
        Ok((gpt, report))
    }
}

/// Keys and values of the positions that a [`Gpt`] has seen, so that the next token costs one position's work.
///
/// Has room for `n_positions` from the start: a step writes its own position, and moves none of those before it.
pub struct KvCache {
    layers: Vec<LayerCache>,
}

struct LayerCache {
    room: usize,
    len: usize,
    /// `[B, H, room, D]`, from the first step on.
    stored: Option<[Tensor; 2]>,
}

impl LayerCache {
    /// Adds keys and values `[B, H, T, D]`; all there are now.
    fn extend(&mut self, k: &Var, v: &Var) -> (Var, Var) {
        let new = [k.tensor(), v.tensor()];
        let [b, h, t, d] = k.tensor().dims_of("KvCache");
        let whole = self.len == 0 || self.stored.is_some();
        ensure!(whole, Value, "KvCache", "an earlier step failed half way; start with a new cache");
        let [keys, values] = self
            .stored
            .take()
            .unwrap_or_else(|| new.map(|x| Tensor::full_on([b, h, self.room, d], 0.0, x.dtype(), &x.device())));
        let at = self.len;
        // In place: nobody else holds them between two steps.
        let write = |stored: Tensor, new: &Tensor| stored.into_replaced(|x| x.narrow(2, at, t), new);
        let stored = [write(keys, new[0]), write(values, new[1])];
        self.len += t;
        let seen = stored.each_ref().map(|x| Var::from(x.narrow(2, 0, self.len)));
        self.stored = Some(stored);
        seen.into()
    }
}

impl KvCache {
    /// An empty cache for `model`.
    pub fn new(model: &Gpt) -> KvCache {
        let layer = |_| LayerCache { room: model.config.n_positions, len: 0, stored: None };
        KvCache { layers: (0..model.config.n_layer).map(layer).collect() }
    }
    /// Number of positions seen.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |l| l.len)
    }
    /// Forgets all but the first `len` positions.
    pub fn truncate(&mut self, len: usize) {
        self.layers.iter_mut().for_each(|layer| layer.len = layer.len.min(len));
    }
}

/// How the next token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only the k likeliest tokens.
    pub top_k: Option<usize>,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 1.0, top_k: None }
    }
}

impl Sampling {
    /// Always the likeliest token.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: None };

    /// Draws from logits `[V]`.
    pub fn draw(&self, logits: &Tensor) -> i64 {
        if self.temperature <= 0.0 {
            return logits.argmax(-1).item();
        }
        let mut logits = logits.to_dtype(DType::F32).mul_scalar(1.0 / self.temperature);
        if let Some(k) = self.top_k.filter(|&k| k < logits.numel()) {
            let (best, _) = logits.topk(k.max(1), -1, true);
            logits = logits.masked_fill(&logits.lt(&best.select(-1, -1)), f64::NEG_INFINITY);
        }
        logits.softmax(-1).multinomial(1, true).item()
    }
}
