//! Models on a long short-term memory: Hochreiter & Schmidhuber 1997.
//!
//! ```text
//! i, f, o = σ(W x_t + U h_{t−1} + b)          input, forget and output gate
//! g       = tanh(W x_t + U h_{t−1} + b)       candidate
//! c_t     = f ∘ c_{t−1} + i ∘ g               the memory: error flows through it undamped where f ≈ 1
//! h_t     = o ∘ tanh(c_t)
//! ```
//!
//! [`LstmClassifier`] reads a sequence and says what it is; [`LstmLm`] says which token comes next.

use ferrograd_autograd::{CrossEntropy, Var};
use ferrograd_nn::{Dropout, Embedding, Linear, Lstm, Module, bce_with_logits};
use ferrograd_tensor::{DType, Error, Result, Tensor, ensure, fail};
use serde::{Deserialize, Serialize};

/// The sizes of an [`LstmClassifier`]; the defaults are those of Keras's IMDb example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LstmClassifierConfig {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width of the embedding.
    pub embed_dim: usize,
    /// Width of the state, per direction.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Number of classes; 1 for a single logit.
    pub num_classes: usize,
    /// A second LSTM per layer that reads from the end.
    pub bidirectional: bool,
    /// Dropout of the embeddings, between the layers and in front of the classifier, in training (Zaremba et al. 2014).
    pub dropout: f64,
    /// Dropout of the recurrent connections, one mask for all steps, in training (Gal & Ghahramani 2016).
    pub recurrent_dropout: f64,
}

impl Default for LstmClassifierConfig {
    fn default() -> Self {
        LstmClassifierConfig {
            vocab_size: 20_000,
            embed_dim: 128,
            hidden_size: 64,
            num_layers: 2,
            num_classes: 2,
            bidirectional: true,
            dropout: 0.0,
            recurrent_dropout: 0.0,
        }
    }
}

impl LstmClassifierConfig {
    /// Are the sizes usable?
    ///
    /// # Errors
    /// If one is zero, or a dropout lies outside `[0, 1)`.
    pub fn check(&self) -> Result<()> {
        check_sizes(
            "LSTM classifier configuration",
            &[
                ("vocab_size", self.vocab_size),
                ("embed_dim", self.embed_dim),
                ("hidden_size", self.hidden_size),
                ("num_layers", self.num_layers),
                ("num_classes", self.num_classes),
            ],
            &[("dropout", self.dropout), ("recurrent_dropout", self.recurrent_dropout)],
        )
    }
}

fn check_sizes(what: &str, sizes: &[(&str, usize)], dropouts: &[(&str, f64)]) -> Result<()> {
    if let Some((name, _)) = sizes.iter().find(|(_, n)| *n == 0) {
        return Err(Error::format(what, format!("{name} is 0")));
    }
    match dropouts.iter().find(|(_, p)| !(0.0..1.0).contains(p)) {
        Some((name, p)) => Err(Error::format(what, format!("{name} {p} lies outside [0, 1)"))),
        None => Ok(()),
    }
}

#[track_caller]
fn check_tokens(op: &'static str, tokens: &Tensor) {
    ensure!(
        tokens.rank() == 2 && tokens.dtype() == DType::I64,
        Shape,
        op,
        "tokens must be [B, T] of i64, got {} of {}",
        tokens.shape(),
        tokens.dtype()
    );
}

/// What a sequence is: embedding → LSTM → the final states → the classes.
#[derive(Module)]
pub struct LstmClassifier {
    /// A vector for each token.
    pub embed: Embedding,
    /// The layers.
    pub lstm: Lstm,
    /// From the last layer's final states, forward then backward, to the classes.
    pub head: Linear,
    dropout: Dropout,
    #[module(skip)]
    config: LstmClassifierConfig,
}

impl LstmClassifier {
    /// A model with random weights.
    ///
    /// # Errors
    /// See [`LstmClassifierConfig::check`].
    pub fn new(config: &LstmClassifierConfig) -> Result<LstmClassifier> {
        config.check()?;
        let directions = 1 + config.bidirectional as usize;
        Ok(LstmClassifier {
            embed: Embedding::new(config.vocab_size, config.embed_dim),
            lstm: Lstm::new(config.embed_dim, config.hidden_size)
                .num_layers(config.num_layers)
                .bidirectional(config.bidirectional)
                .dropout(config.dropout)
                .recurrent_dropout(config.recurrent_dropout),
            head: Linear::new(directions * config.hidden_size, config.num_classes),
            dropout: Dropout::new(config.dropout),
            config: config.clone(),
        })
    }
    /// The sizes it was made with.
    pub fn config(&self) -> &LstmClassifierConfig {
        &self.config
    }

    /// Tokens `[B, T]` of i64 → scores `[B, classes]`. `lengths` says how many of each row's tokens count; what comes
    /// after them is padding, which neither direction reads.
    ///
    /// # Panics
    /// If a token is none of the vocabulary, or the lengths are not `B` numbers in `1..=T`.
    #[track_caller]
    pub fn forward(&self, tokens: &Tensor, lengths: Option<&[usize]>) -> Var {
        check_tokens("LstmClassifier", tokens);
        if let Some(empty) = lengths.and_then(|l| l.iter().position(|&n| n == 0)) {
            fail!(Value, "LstmClassifier", "sequence {empty} has no tokens: lengths lie in 1..={}", tokens.dim(1))
        }
        let x = self.dropout.forward(&self.embed.forward(tokens));
        let (_, (h_n, _)) = self.lstm.forward_with(&x, None, lengths);
        // h_n is [layers · directions, B, H], the last layer's directions at the end.
        let h = match self.config.bidirectional {
            true => Var::cat(&[&h_n.select(0, -2), &h_n.select(0, -1)], -1),
            false => h_n.select(0, -1),
        };
        self.head.forward(&self.dropout.forward(&h))
    }
    /// Mean cross-entropy of scores `[B, classes]` with labels `[B]`; of a single logit `[B, 1]`, the binary one with
    /// labels 0 and 1.
    #[track_caller]
    pub fn loss(logits: &Var, labels: &Tensor) -> Var {
        if logits.dim(-1) == 1 {
            return bce_with_logits(&logits.squeeze(-1), labels);
        }
        logits.cross_entropy(labels, &CrossEntropy::default())
    }
}

/// The sizes of an [`LstmLm`]; the defaults are those of the medium model of Zaremba et al. 2014.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LstmLmConfig {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width of the embedding.
    pub embed_dim: usize,
    /// Width of the state.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Do the output weights share the embedding (Press & Wolf 2017)? Then `embed_dim` must be `hidden_size`.
    pub tie_weights: bool,
    /// Dropout of the embeddings, between the layers and in front of the output, in training.
    pub dropout: f64,
    /// Dropout of the recurrent connections, one mask for all steps, in training.
    pub recurrent_dropout: f64,
}

impl Default for LstmLmConfig {
    fn default() -> Self {
        LstmLmConfig {
            vocab_size: 10_000,
            embed_dim: 650,
            hidden_size: 650,
            num_layers: 2,
            tie_weights: false,
            dropout: 0.5,
            recurrent_dropout: 0.0,
        }
    }
}

impl LstmLmConfig {
    /// Are the sizes usable?
    ///
    /// # Errors
    /// If one is zero, a dropout lies outside `[0, 1)`, or the weights are tied and their widths differ.
    pub fn check(&self) -> Result<()> {
        let what = "LSTM language model configuration";
        check_sizes(
            what,
            &[
                ("vocab_size", self.vocab_size),
                ("embed_dim", self.embed_dim),
                ("hidden_size", self.hidden_size),
                ("num_layers", self.num_layers),
            ],
            &[("dropout", self.dropout), ("recurrent_dropout", self.recurrent_dropout)],
        )?;
        match self.tie_weights && self.embed_dim != self.hidden_size {
            true => Err(Error::format(
                what,
                format!("tied weights need embed_dim = hidden_size, got {} and {}", self.embed_dim, self.hidden_size),
            )),
            false => Ok(()),
        }
    }
}

/// Which token comes next: embedding → LSTM → scores of the vocabulary at every step.
#[derive(Module)]
pub struct LstmLm {
    /// A vector for each token.
    pub embed: Embedding,
    /// The layers.
    pub lstm: Lstm,
    /// From the state to the vocabulary; its weight may be the embedding's.
    pub head: Linear,
    dropout: Dropout,
    #[module(skip)]
    config: LstmLmConfig,
}

impl LstmLm {
    /// A model with random weights.
    ///
    /// # Errors
    /// See [`LstmLmConfig::check`].
    pub fn new(config: &LstmLmConfig) -> Result<LstmLm> {
        config.check()?;
        let embed = Embedding::new(config.vocab_size, config.embed_dim);
        let mut head = Linear::new(config.hidden_size, config.vocab_size);
        if config.tie_weights {
            // The head's scale: an embedding of unit variance would start with scores of variance H.
            embed.weight.set(head.weight.tensor());
            head.weight = embed.weight.clone();
        }
        let lstm = Lstm::new(config.embed_dim, config.hidden_size)
            .num_layers(config.num_layers)
            .dropout(config.dropout)
            .recurrent_dropout(config.recurrent_dropout);
        Ok(LstmLm { embed, lstm, head, dropout: Dropout::new(config.dropout), config: config.clone() })
    }
    /// The sizes it was made with.
    pub fn config(&self) -> &LstmLmConfig {
        &self.config
    }

    /// Tokens `[B, T]` of i64 and the states before them → scores `[B, T, V]` of the token after each, and the states
    /// `(h, c)`, both `[layers, B, H]`, after the last. No state: zeros. Detach what is carried from one piece of text
    /// to the next (truncated backpropagation through time).
    ///
    /// # Panics
    /// If a token is none of the vocabulary, or the states have another shape.
    #[track_caller]
    pub fn forward(&self, tokens: &Tensor, state: Option<(&Var, &Var)>) -> (Var, (Var, Var)) {
        check_tokens("LstmLm", tokens);
        let x = self.dropout.forward(&self.embed.forward(tokens));
        let (h, state) = self.lstm.forward_with(&x, state, None);
        (self.head.forward(&self.dropout.forward(&h)), state)
    }
    /// Mean cross-entropy of scores `[B, T, V]` with the tokens that came, `[B, T]`; −100 is ignored. Its exponential is
    /// the perplexity.
    #[track_caller]
    pub fn loss(logits: &Var, targets: &Tensor) -> Var {
        let [b, t, v] = logits.dims_of("LstmLm loss");
        logits.reshape([b * t, v]).cross_entropy(&targets.flatten(), &CrossEntropy::default())
    }
}
