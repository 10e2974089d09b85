//! Attention with several heads.

use super::dropout::check_probability;
use super::linear::Linear;
use crate::{Mode, Module, Param, init};
use ferrograd_autograd::Var;
use ferrograd_autograd::ops::AttentionOptions;
use ferrograd_tensor::ops::attention::padding;
use ferrograd_tensor::{DType, Tensor, ensure};

/// Who may not attend to what, in PyTorch's sense: **true hides**.
///
/// ```
/// use ferrograd_nn::AttentionMasks;
/// use ferrograd_tensor::Tensor;
/// let padding = Tensor::new([[false, false, true]]); // the third token of the only row is padding
/// let masks = AttentionMasks::new().causal().key_padding_mask(&padding);
/// # let _ = masks;
/// ```
#[derive(Clone, Debug, Default)]
pub struct AttentionMasks {
    attn_mask: Option<Var>,
    key_padding_mask: Option<Tensor>,
    key_lengths: Option<Tensor>,
    causal: bool,
    window: Option<usize>,
}
impl AttentionMasks {
    /// Everybody attends to everything.
    pub fn new() -> AttentionMasks {
        AttentionMasks::default()
    }
    /// A query sees its own and earlier keys only.
    pub fn causal(mut self) -> AttentionMasks {
        self.causal = true;
        self
    }
    /// A query sees its own and the `size − 1` keys before it only: a sliding window.
    pub fn window(mut self, size: usize) -> AttentionMasks {
        (self.causal, self.window) = (true, Some(size));
        self
    }
    /// `[Tq, Tk]`, `[B·heads, Tq, Tk]` or one that broadcasts to `[B, heads, Tq, Tk]`. Bool: true where a query may **not**
    /// attend to a key. Float: added to the scores; one with history gets its gradient.
    pub fn attn_mask(mut self, mask: impl Into<Var>) -> AttentionMasks {
        self.attn_mask = Some(mask.into());
        self
    }
    /// `[B, Tk]`, bool: true where a key is padding, to which no query attends.
    pub fn key_padding_mask(mut self, mask: &Tensor) -> AttentionMasks {
        self.key_padding_mask = Some(mask.clone());
        self
    }
    /// `[B]`, integers: only the first so many keys of each row are there. The same as a padding mask that hides the others, and
    /// faster: no query looks at them. The projections still do: it has to be numbers that they are made of.
    pub fn key_lengths(mut self, lengths: &Tensor) -> AttentionMasks {
        self.key_lengths = Some(lengths.clone());
        self
    }

    /// The options of the attention itself, where true means "may attend".
    #[track_caller]
    fn options(&self, [b, h, tq, tk]: [usize; 4]) -> AttentionOptions {
        const LAYER: &str = "MultiHeadAttention";
        let mut hidden: Option<Tensor> = None;
        let mut bias = None;
        if let Some(mask) = &self.attn_mask {
            let mask = match mask.rank() {
                3 => {
                    let expected = [b * h, tq, tk];
                    let fits = *mask.shape() == expected;
                    ensure!(
                        fits,
                        Shape,
                        LAYER,
                        "a mask of three dimensions must be {expected:?}, got {}",
                        mask.shape()
                    );
                    mask.reshape([b, h, tq, tk])
                }
                _ => mask.clone(),
            };
            match mask.dtype() {
                DType::Bool => hidden = Some(mask.into_tensor()),
                dtype if dtype.is_float() => bias = Some(mask),
                dtype => ensure!(false, DType, LAYER, "attn_mask must be bool or float, got {dtype}"),
            }
        }
        if let Some(padding) = &self.key_padding_mask {
            let fits = *padding.shape() == [b, tk];
            ensure!(fits, Shape, LAYER, "key_padding_mask must be {:?}, got {}", [b, tk], padding.shape());
            let bool = padding.dtype() == DType::Bool;
            ensure!(bool, DType, LAYER, "key_padding_mask must be bool, got {}", padding.dtype());
            let padding = padding.reshape([b, 1, 1, tk]);
            hidden = Some(hidden.map_or(padding.clone(), |mask| mask.logical_or(&padding)));
        }
        AttentionOptions {
            mask: hidden.map(|mask| mask.logical_not()),
            mask_var: bias,
            causal: self.causal,
            window: self.window,
            key_lengths: self.key_lengths.clone(),
            ..AttentionOptions::default()
        }
    }
}

/// Which attention weights [`MultiHeadAttention::forward_with_weights`] gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AttentionWeights {
    /// The mean over the heads: `[B, Tq, Tk]`.
    #[default]
    Averaged,
    /// Of each head: `[B, heads, Tq, Tk]`.
    PerHead,
}

/// Attention with several heads, A. Vaswani et al. 2017: `softmax(Q Kᵀ/√D + mask) V` for each head, where Q, K and V are
/// projections of query, key and value; the heads side by side are projected once more.
///
/// Query `[B, Tq, embed_dim]`, key `[B, Tk, kdim]`, value `[B, Tk, vdim]` → `[B, Tq, embed_dim]` (PyTorch's
/// `batch_first=True`). A query that may attend to nothing gets the output of zero heads.
///
/// Parameters: `in_proj_weight` `[3·embed_dim, embed_dim]` (queries, keys, values from top to bottom; Xavier uniform), or
/// `q_proj_weight`, `k_proj_weight`, `v_proj_weight` where `kdim` or `vdim` differ; `in_proj_bias` `[3·embed_dim]` (zeros);
/// `out_proj.weight` `[embed_dim, embed_dim]` and `out_proj.bias` (zeros).
#[derive(Module)]
#[module(extra_repr)]
pub struct MultiHeadAttention {
    in_proj_weight: Option<Param>,
    q_proj_weight: Option<Param>,
    k_proj_weight: Option<Param>,
    v_proj_weight: Option<Param>,
    in_proj_bias: Option<Param>,
    /// The projection of the heads.
    pub out_proj: Linear,
    embed_dim: usize,
    num_heads: usize,
    kdim: usize,
    vdim: usize,
    dropout: f64,
    mode: Mode,
}
layer_with!(MultiHeadAttention, |layer, x| layer.self_attention(x, &AttentionMasks::default()));

impl MultiHeadAttention {
    /// With biases, without dropout; keys and values of the queries' width.
    ///
    /// # Panics
    /// If the heads do not divide `embed_dim`.
    #[track_caller]
    pub fn new(embed_dim: usize, num_heads: usize) -> MultiHeadAttention {
        let fits = num_heads > 0 && embed_dim.is_multiple_of(num_heads);
        ensure!(fits, Value, "MultiHeadAttention", "{embed_dim} features do not divide into {num_heads} heads");
        let layer = MultiHeadAttention {
            in_proj_weight: None,
            q_proj_weight: None,
            k_proj_weight: None,
            v_proj_weight: None,
            in_proj_bias: Some(Param::new(init::zeros(3 * embed_dim))),
            out_proj: Linear::new(embed_dim, embed_dim),
            embed_dim,
            num_heads,
            kdim: embed_dim,
            vdim: embed_dim,
            dropout: 0.0,
            mode: Mode::new(),
        };
        if let Some(bias) = &layer.out_proj.bias {
            init::fill(bias, |shape| init::zeros(shape));
        }
        layer.projections()
    }
    /// Fresh projections for the widths as they are.
    fn projections(mut self) -> MultiHeadAttention {
        let (e, k, v) = (self.embed_dim, self.kdim, self.vdim);
        let weight = |rows: usize, columns: usize| Some(Param::new(init::xavier_uniform([rows, columns], 1.0)));
        let same = k == e && v == e;
        self.in_proj_weight = if same { weight(3 * e, e) } else { None };
        [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight] =
            if same { [None, None, None] } else { [weight(e, e), weight(e, k), weight(e, v)] };
        self
    }
    /// Features of the keys. Draws fresh projections.
    pub fn kdim(mut self, kdim: usize) -> MultiHeadAttention {
        self.kdim = kdim;
        self.projections()
    }
    /// Features of the values. Draws fresh projections.
    pub fn vdim(mut self, vdim: usize) -> MultiHeadAttention {
        self.vdim = vdim;
        self.projections()
    }
    /// With or without biases.
    pub fn bias(mut self, bias: bool) -> MultiHeadAttention {
        if bias != self.in_proj_bias.is_some() {
            self.in_proj_bias = bias.then(|| Param::new(init::zeros(3 * self.embed_dim)));
            self.out_proj = self.out_proj.bias(bias);
            if let Some(bias) = &self.out_proj.bias {
                init::fill(bias, |shape| init::zeros(shape));
            }
        }
        self
    }
    /// Dropout of the attention weights, in training.
    #[track_caller]
    pub fn dropout(mut self, p: f64) -> MultiHeadAttention {
        check_probability("MultiHeadAttention", p);
        self.dropout = p;
        self
    }

    /// Attention of `query` to `key`, whose `value` it gets. `query`, `key` and `value` may be the same.
    ///
    /// # Panics
    /// If a shape does not fit.
    #[track_caller]
    pub fn forward(&self, query: &Var, key: &Var, value: &Var, masks: &AttentionMasks) -> Var {
        let [q, k, v] = self.heads(query, key, value);
        let options = self.options(&q, &k, masks);
        self.joined(&q.scaled_dot_product_attention(&k, &v, &options))
    }
    /// [`forward`](MultiHeadAttention::forward) with the weights by which the values were added (after dropout, as in
    /// PyTorch). They take `Tq · Tk` memory for each head, which `forward` never needs.
    #[track_caller]
    pub fn forward_with_weights(
        &self,
        query: &Var,
        key: &Var,
        value: &Var,
        masks: &AttentionMasks,
        of: AttentionWeights,
    ) -> (Var, Var) {
        let [q, k, v] = self.heads(query, key, value);
        let weights = q.attention_weights(&k, &self.options(&q, &k, masks));
        // Not even weights of 0 make a number of whatever padding may be.
        let v = match &masks.key_lengths {
            Some(lengths) => v.masked_fill(&padding(lengths, v.dim(2)), 0.0),
            None => v,
        };
        let y = self.joined(&weights.matmul(&v));
        (y, if of == AttentionWeights::Averaged { weights.mean_dims(1) } else { weights })
    }
    /// Attention of `x` to itself.
    #[track_caller]
    pub fn self_attention(&self, x: &Var, masks: &AttentionMasks) -> Var {
        self.forward(x, x, x, masks)
    }

    #[track_caller]
    fn options(&self, q: &Var, k: &Var, masks: &AttentionMasks) -> AttentionOptions {
        let options = masks.options([q.dim(0), q.dim(1), q.dim(2), k.dim(2)]);
        AttentionOptions { dropout: if self.mode.training() { self.dropout } else { 0.0 }, ..options }
    }
    /// Queries, keys and values of each head, `[B, heads, T, D]`.
    #[track_caller]
    fn heads(&self, query: &Var, key: &Var, value: &Var) -> [Var; 3] {
        let widths = [("query", query, self.embed_dim), ("key", key, self.kdim), ("value", value, self.vdim)];
        for (name, x, width) in widths {
            ensure!(
                x.rank() == 3 && x.dim(2) == width,
                Shape,
                "MultiHeadAttention",
                "expected {name} [B, T, {width}], got {} ({})",
                x.shape(),
                self.describe_self()
            );
        }
        ensure!(
            query.dim(0) == key.dim(0) && key.dims()[..2] == value.dims()[..2],
            Shape,
            "MultiHeadAttention",
            "batches and the times of key and value must agree, got query {}, key {}, value {}",
            query.shape(),
            key.shape(),
            value.shape()
        );
        let bias = self.in_proj_bias.as_ref().map(Param::var);
        let projected: Vec<Var> = match &self.in_proj_weight {
            // One product for all three.
            Some(weight) if std::ptr::eq(query, key) && std::ptr::eq(key, value) => {
                query.linear(&weight.var(), bias.as_ref()).chunk(3, 2)
            }
            packed => {
                let weights = match packed {
                    Some(weight) => weight.var().chunk(3, 0),
                    None => {
                        let parts = [&self.q_proj_weight, &self.k_proj_weight, &self.v_proj_weight];
                        parts.into_iter().flatten().map(Param::var).collect()
                    }
                };
                let biases = bias.map(|b| b.chunk(3, 0));
                let project = |(i, x): (usize, &Var)| x.linear(&weights[i], biases.as_ref().map(|b| &b[i]));
                [query, key, value].into_iter().enumerate().map(project).collect()
            }
        };
        let d = self.embed_dim / self.num_heads;
        let split = |x: &Var| x.reshape([x.dim(0), x.dim(1), self.num_heads, d]).transpose(1, 2);
        [split(&projected[0]), split(&projected[1]), split(&projected[2])]
    }
    /// The heads `[B, heads, T, D]` side by side and projected.
    #[track_caller]
    fn joined(&self, heads: &Var) -> Var {
        let [b, _, t, _] = heads.dims_of("MultiHeadAttention");
        self.out_proj.forward(&heads.transpose(1, 2).reshape([b, t, self.embed_dim]))
    }
    fn describe_self(&self) -> String {
        format!("MultiHeadAttention({})", self.extra_repr())
    }
    fn extra_repr(&self) -> String {
        let mut text = format!("{}, {}", self.embed_dim, self.num_heads);
        if self.kdim != self.embed_dim || self.vdim != self.embed_dim {
            text += &format!(", kdim={}, vdim={}", self.kdim, self.vdim);
        }
        text + &format!(", dropout={}, bias={}", self.dropout, self.in_proj_bias.is_some())
    }
}
