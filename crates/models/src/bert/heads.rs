//! BERT with a task on top.

use super::{Bert, BertConfig, initialise};
use ferrograd_autograd::{CrossEntropy, Var};
use ferrograd_nn::{Dropout, LayerNorm, Linear, Module, Param};
use ferrograd_tensor::{Activation, Result, Tensor};

/// The dense layer in front of the vocabulary: `LayerNorm(act(x Wᵀ + b))`.
#[derive(Module)]
pub struct BertPredictionTransform {
    /// The layer.
    pub dense: Linear,
    /// The norm of its activation.
    #[module(rename = "LayerNorm")]
    pub layer_norm: LayerNorm,
    act: Activation,
}

/// From hidden states to scores of the vocabulary: `transform(x) Eᵀ + b`, `E` the word embedding (tied).
#[derive(Module)]
pub struct BertLmHead {
    /// One number for each token; the decoder's bias is this.
    pub bias: Param,
    /// The dense layer in front.
    pub transform: BertPredictionTransform,
    /// The matrix `E`.
    pub decoder: Linear,
}

/// The place of the head in the names: `cls.predictions`.
#[derive(Module)]
pub struct BertLmHeads {
    /// The head.
    pub predictions: BertLmHead,
}

/// Fills in masked tokens: the first of BERT's two pre-training tasks.
#[derive(Module)]
pub struct BertForMaskedLm {
    /// The encoder, without the pooler.
    pub bert: Bert,
    /// `cls.predictions`.
    pub cls: BertLmHeads,
}

impl BertForMaskedLm {
    /// A model with random weights.
    ///
    /// # Errors
    /// See [`BertConfig::check`].
    pub fn new(config: &BertConfig) -> Result<Self> {
        let bert = Bert::without_pooler(config)?;
        let (c, v) = (config.hidden_size, config.vocab_size);
        let bias = Param::new(Tensor::zeros([v]));
        let weight = match config.tie_word_embeddings {
            true => bert.embeddings.word_embeddings.weight.clone(),
            false => Param::new(Tensor::normal([v, c], 0.0, config.initializer_range)),
        };
        let transform = BertPredictionTransform {
            dense: Linear::new(c, c),
            layer_norm: LayerNorm::new([c]).eps(config.layer_norm_eps),
            act: config.hidden_act,
        };
        initialise(&transform, config);
        let decoder = Linear::from_weight(weight, Some(bias.clone()));
        Ok(BertForMaskedLm { bert, cls: BertLmHeads { predictions: BertLmHead { bias, transform, decoder } } })
    }

    /// Tokens (see [`Bert::forward`]) → scores `[B, T, V]` of what stands at each place.
    #[track_caller]
    pub fn forward(&self, input_ids: &Tensor, token_type_ids: Option<&Tensor>, attention_mask: Option<&Tensor>) -> Var {
        let h = self.bert.forward(input_ids, token_type_ids, attention_mask).last_hidden_state;
        let head = &self.cls.predictions;
        let h = head.transform.dense.forward(&h).activate(head.transform.act);
        head.decoder.forward(&head.transform.layer_norm.forward(&h))
    }
    /// Mean cross-entropy of scores `[B, T, V]` at the places whose label `[B, T]` is not −100.
    #[track_caller]
    pub fn loss(logits: &Var, labels: &Tensor) -> Var {
        token_loss(logits, labels)
    }
}

/// The place of the head in the names: `cls.seq_relationship`.
#[derive(Module)]
pub struct BertNextSentenceHead {
    /// The classifier: score of "follows", score of "is random".
    pub seq_relationship: Linear,
}

/// Does sentence B follow sentence A? The second of BERT's two pre-training tasks.
#[derive(Module)]
pub struct BertForNextSentence {
    /// The encoder.
    pub bert: Bert,
    /// `cls.seq_relationship`.
    pub cls: BertNextSentenceHead,
}

impl BertForNextSentence {
    /// A model with random weights.
    ///
    /// # Errors
    /// See [`BertConfig::check`].
    pub fn new(config: &BertConfig) -> Result<Self> {
        let bert = Bert::new(config)?;
        let cls = BertNextSentenceHead { seq_relationship: Linear::new(config.hidden_size, 2) };
        initialise(&cls, config);
        Ok(BertForNextSentence { bert, cls })
    }
    /// Tokens (see [`Bert::forward`]) → scores `[B, 2]`: class 0 that B follows A, class 1 that it does not.
    #[track_caller]
    pub fn forward(&self, input_ids: &Tensor, token_type_ids: Option<&Tensor>, attention_mask: Option<&Tensor>) -> Var {
        self.cls.seq_relationship.forward(&pooled(&self.bert, input_ids, token_type_ids, attention_mask))
    }
    /// Mean cross-entropy of scores `[B, 2]` with labels `[B]`.
    #[track_caller]
    pub fn loss(logits: &Var, labels: &Tensor) -> Var {
        logits.cross_entropy(labels, &CrossEntropy::default())
    }
}

/// One label for the sequence: sentiment, entailment, similarity.
#[derive(Module)]
pub struct BertForSequenceClassification {
    /// The encoder.
    pub bert: Bert,
    /// Dropout of the pooled vector.
    pub dropout: Dropout,
    /// `[C]` → the classes.
    pub classifier: Linear,
}

impl BertForSequenceClassification {
    /// A model with random weights and [`config.labels()`](BertConfig::labels) classes.
    ///
    /// # Errors
    /// See [`BertConfig::check`].
    pub fn new(config: &BertConfig) -> Result<Self> {
        let bert = Bert::new(config)?;
        let (dropout, classifier) = classifier(config);
        Ok(BertForSequenceClassification { bert, dropout, classifier })
    }
    /// Tokens (see [`Bert::forward`]) → scores `[B, classes]`.
    #[track_caller]
    pub fn forward(&self, input_ids: &Tensor, token_type_ids: Option<&Tensor>, attention_mask: Option<&Tensor>) -> Var {
        let pooled = pooled(&self.bert, input_ids, token_type_ids, attention_mask);
        self.classifier.forward(&self.dropout.forward(&pooled))
    }
    /// Mean cross-entropy of scores `[B, classes]` with labels `[B]` of i64. With a single class it is a regression,
    /// as in Hugging Face: the mean of `(score − label)²`, labels `[B]` of the scores' dtype.
    #[track_caller]
    pub fn loss(logits: &Var, labels: &Tensor) -> Var {
        match logits.dim(-1) {
            1 => (logits.squeeze(-1) - Var::constant(labels.clone())).square().mean(),
            _ => logits.cross_entropy(labels, &CrossEntropy::default()),
        }
    }
}

/// One label for each token: named entities, parts of speech.
#[derive(Module)]
pub struct BertForTokenClassification {
    /// The encoder, without the pooler.
    pub bert: Bert,
    /// Dropout of the hidden states.
    pub dropout: Dropout,
    /// `[C]` → the classes.
    pub classifier: Linear,
}

impl BertForTokenClassification {
    /// A model with random weights and [`config.labels()`](BertConfig::labels) classes.
    ///
    /// # Errors
    /// See [`BertConfig::check`].
    pub fn new(config: &BertConfig) -> Result<Self> {
        let bert = Bert::without_pooler(config)?;
        let (dropout, classifier) = classifier(config);
        Ok(BertForTokenClassification { bert, dropout, classifier })
    }
    /// Tokens (see [`Bert::forward`]) → scores `[B, T, classes]`.
    #[track_caller]
    pub fn forward(&self, input_ids: &Tensor, token_type_ids: Option<&Tensor>, attention_mask: Option<&Tensor>) -> Var {
        let h = self.bert.forward(input_ids, token_type_ids, attention_mask).last_hidden_state;
        self.classifier.forward(&self.dropout.forward(&h))
    }
    /// Mean cross-entropy of scores `[B, T, classes]` at the places whose label `[B, T]` is not −100.
    #[track_caller]
    pub fn loss(logits: &Var, labels: &Tensor) -> Var {
        token_loss(logits, labels)
    }
}

fn classifier(config: &BertConfig) -> (Dropout, Linear) {
    let dropout = Dropout::new(config.classifier_dropout.unwrap_or(config.hidden_dropout_prob));
    let classifier = Linear::new(config.hidden_size, config.labels());
    initialise(&classifier, config);
    (dropout, classifier)
}

#[track_caller]
fn pooled(bert: &Bert, ids: &Tensor, types: Option<&Tensor>, mask: Option<&Tensor>) -> Var {
    bert.forward(ids, types, mask).pooler_output.expect("Bert::new has a pooler")
}

/// Scores `[B, T, V]`, labels `[B, T]`: the mean over the places that have a label.
#[track_caller]
fn token_loss(logits: &Var, labels: &Tensor) -> Var {
    let [b, t, v] = logits.dims_of("Bert loss");
    logits.reshape([b * t, v]).cross_entropy(&labels.flatten(), &CrossEntropy::default())
}
