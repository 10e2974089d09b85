//! Scaled dot-product attention (Vaswani et al. 2017), grouped-query attention included (Ainslie et al. 2023).

use crate::random::RngState;
use crate::tensor::same_device;
use crate::{DType, Device, Shape, Tensor, ensure};

const OP: &str = "scaled_dot_product_attention";

/// Dropout by a stream of random numbers: weight `i` in row-major order is kept where the stream's Bernoulli number `i` of
/// probability `1 − p` is 1, and divided by `1 − p` (Srivastava et al. 2014, inverted). The same stream makes the same
/// zeros again, in the backward pass and on every device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutStream {
    /// Probability of a zero, in `[0, 1]`.
    pub p: f64,
    /// The generator's key and the number of the stream, from [`reserve`](crate::random::reserve).
    pub state: RngState,
}

/// How [`Tensor::scaled_dot_product_attention`] attends.
#[derive(Clone, Debug, Default)]
pub struct AttentionOptions {
    /// Broadcasts to `[B, H, Tq, Tk]`. Bool: true where a query may attend to a key. Float: added to the scaled scores.
    pub mask: Option<Tensor>,
    /// Query `i` sees the keys `j ≤ i + causal_offset` only.
    pub causal: bool,
    /// How many keys come before the first query's own: 0 aligns the triangle at the top left, as PyTorch does; decoding
    /// behind a cache of `n` keys has `n`.
    pub causal_offset: usize,
    /// With `causal`: a query sees that many keys at most, the last ones that causality leaves it (a sliding window: Beltagy et al.
    /// 2020): `j > i + causal_offset − window`. What lies before is not even looked at.
    pub window: Option<usize>,
    /// `[B]`, integers: how many of its keys each batch has, if they are not all there. What lies behind is padding that nobody
    /// looks at, whatever it holds; unlike that of a mask, its part of the work is not done.
    pub key_lengths: Option<Tensor>,
    /// The scores' factor; `1/√D` if `None`.
    pub scale: Option<f64>,
    /// Dropout of the weights.
    pub dropout: Option<DropoutStream>,
}

/// The options as a backend gets them: checked, and with every default filled in.
#[derive(Clone, Debug)]
pub struct AttentionArgs {
    /// Expanded to `[B, H, Tq, Tk]`: bool, or float of the accumulator dtype of the queries (f32 for half types).
    pub mask: Option<Tensor>,
    /// `Some(n)`: query `i` sees the keys `j ≤ i + n`.
    pub causal: Option<usize>,
    /// `Some(w)`, of causal attention only: it sees the keys `j > i + n − w` only.
    pub window: Option<usize>,
    /// `[B]`, i64, contiguous: query `i` of batch `b` sees the keys `j < key_lengths[b]` only.
    pub key_lengths: Option<Tensor>,
    /// The scores' factor.
    pub scale: f64,
    /// Dropout of the weights.
    pub dropout: Option<DropoutStream>,
}

impl AttentionArgs {
    /// How many of `tk` keys a query sees, about and on average: half of them if attention is causal, and no more than the window.
    pub fn keys_seen(&self, tk: usize) -> f64 {
        let seen = tk as f64 * if self.causal.is_some() { 0.5 } else { 1.0 };
        self.window.map_or(seen, |window| seen.min(window as f64))
    }
}

/// What [`Tensor::attention_backward`] returns.
pub struct AttentionGradients {
    /// `[B, H, Tq, D]`, the queries' dtype.
    pub query: Tensor,
    /// `[B, Hₖ, Tk, D]`, the keys' dtype.
    pub key: Tensor,
    /// `[B, Hₖ, Tk, Dᵥ]`, the values' dtype.
    pub value: Tensor,
    /// The float mask's gradient, if it was asked for: `[B, H, Tq, Tk]` in the accumulator dtype from a backend, the
    /// mask's own shape and dtype from the op.
    pub mask: Option<Tensor>,
}

/// `[Tq, Tk]`, true where query `i` may see key `j`: `i + offset − window < j ≤ i + offset`.
pub fn causal_mask(tq: usize, tk: usize, offset: usize, window: Option<usize>, device: &Device) -> Tensor {
    let count = |n: usize| Tensor::arange(0i64, n as i64, 1).to_device(device);
    let (keys, last) = (count(tk), count(tq).add_scalar(offset as f64).reshape([tq, 1]));
    let seen = keys.le(&last);
    match window {
        Some(window) if window <= offset.saturating_add(tq) => {
            seen.logical_and(&keys.add_scalar(window as f64).gt(&last))
        }
        _ => seen,
    }
}

/// `[B, 1, Tk, 1]`, true where a batch has no such key.
pub fn padding(key_lengths: &Tensor, tk: usize) -> Tensor {
    let keys = Tensor::arange(0i64, tk as i64, 1).to_device(&key_lengths.device()).reshape([tk, 1]);
    keys.ge(&key_lengths.to_dtype(DType::I64).reshape([key_lengths.numel(), 1, 1, 1]))
}

/// Checks everything; queries, keys and values in one dtype, and the arguments for the backend.
#[track_caller]
fn prepare(q: &Tensor, k: &Tensor, v: &Tensor, options: &AttentionOptions) -> ([Tensor; 3], AttentionArgs) {
    same_device(OP, &[q, k, v]);
    let dtype = q.dtype().promote(k.dtype()).promote(v.dtype());
    ensure!(dtype.is_float(), DType, OP, "needs floats, got {}, {} and {}", q.dtype(), k.dtype(), v.dtype());
    for (name, x) in [("queries", q), ("keys", k), ("values", v)] {
        ensure!(x.rank() == 4, Shape, OP, "{name} must be [batch, heads, time, size], got {}", x.shape());
    }
    let ([b, h, tq, d], [kb, hk, tk, kd], [vb, vh, vt, _]) = (q.dims_of(OP), k.dims_of(OP), v.dims_of(OP));
    ensure!(b == kb && b == vb, Shape, OP, "batches differ: queries {b}, keys {kb}, values {vb}");
    ensure!(d == kd, Shape, OP, "queries {} and keys {} differ in size ({d} ≠ {kd})", q.shape(), k.shape());
    ensure!(
        hk == vh && tk == vt,
        Shape,
        OP,
        "keys {} and values {} must agree in heads and time",
        k.shape(),
        v.shape()
    );
    ensure!(
        h.is_multiple_of(hk),
        Shape,
        OP,
        "the number of query heads ({h}) must be a multiple of the number of key heads ({hk})"
    );
    let mask = options.mask.as_ref().map(|mask| {
        same_device(OP, &[q, mask]);
        let kind = mask.dtype();
        ensure!(
            kind == DType::Bool || kind.is_float(),
            DType,
            OP,
            "the mask must be bool (true = may attend) or float (added), got {kind}"
        );
        let scores = Shape::from([b, h, tq, tk]);
        let fits = mask.rank() <= 4 && {
            let lead = 4 - mask.rank();
            mask.dims().iter().enumerate().all(|(i, &n)| n == 1 || n == scores[lead + i])
        };
        ensure!(
            fits,
            Shape,
            OP,
            "the mask {} does not broadcast to [batch, heads, queries, keys] = {scores}",
            mask.shape()
        );
        let mask = if kind == DType::Bool { mask.clone() } else { mask.to_dtype(dtype.accumulator()) };
        mask.expand(scores)
    });
    let key_lengths = options.key_lengths.as_ref().map(|lengths| {
        same_device(OP, &[q, lengths]);
        let (kind, shape) = (lengths.dtype(), lengths.shape());
        ensure!(kind.is_int(), DType, OP, "the keys' lengths must be integers, got {kind}");
        ensure!(*shape == [b], Shape, OP, "the keys' lengths must be one for each batch, [{b}], got {shape}");
        let lengths = lengths.to_dtype(DType::I64).contiguous();
        let backend = lengths.device.backend();
        if b > 0 && !backend.checks_later(OP, &lengths, tk + 1, None) {
            let (low, high) = backend.index_range(&lengths);
            let wrong = if low < 0 { low } else { high };
            ensure!(
                (0..=tk as i64).contains(&wrong),
                Index,
                OP,
                "there are {tk} keys, and one of their lengths is {wrong}"
            );
        }
        lengths
    });
    let scale = options.scale.unwrap_or(1.0 / (d.max(1) as f64).sqrt());
    ensure!(scale.is_finite(), Value, OP, "the scale must be finite, got {scale}");
    if let Some(dropout) = options.dropout {
        ensure!((0.0..=1.0).contains(&dropout.p), Value, OP, "the dropout probability {} is not in [0, 1]", dropout.p);
    }
    let dropout = options.dropout.filter(|dropout| dropout.p > 0.0);
    let (causal, window) = (options.causal.then_some(options.causal_offset), options.window);
    ensure!(window.is_none() || options.causal, Value, OP, "a window is one of causal attention: set `causal`, too");
    ensure!(window != Some(0), Value, OP, "a window of no keys: it must be at least 1");
    ([q, k, v].map(|x| x.to_dtype(dtype)), AttentionArgs { mask, causal, window, key_lengths, scale, dropout })
}

/// Every key head as often as query heads share it: `[B, Hₖ, T, D]` to `[B, H, T, D]`.
fn repeat_heads(x: &Tensor, h: usize) -> Tensor {
    let [b, hk, t, d]: [usize; 4] = x.dims_of(OP);
    if h == hk {
        return x.clone();
    }
    x.unsqueeze(2).expand([b, hk, h / hk, t, d]).reshape([b, h, t, d])
}

/// The weights after dropout `[B, H, Tq, Tk]`, and the logsumexp of the scores `[B, H, Tq]`.
fn weights(q: &Tensor, k: &Tensor, args: &AttentionArgs) -> (Tensor, Tensor) {
    let [b, h, tq, _]: [usize; 4] = q.dims_of(OP);
    let tk = k.dim(2);
    if tk == 0 {
        let lse = Tensor::full_on([b, h, tq], f64::NEG_INFINITY, q.dtype(), &q.device());
        return (Tensor::full_on([b, h, tq, tk], 0.0, q.dtype(), &q.device()), lse);
    }
    let mut s = q.mul_scalar(args.scale).matmul(&repeat_heads(k, h).t());
    match &args.mask {
        Some(mask) if mask.dtype() == DType::Bool => s = s.masked_fill(&mask.logical_not(), f64::NEG_INFINITY),
        Some(mask) => s = s.add(mask),
        None => {}
    }
    if let Some(offset) = args.causal {
        let hidden = causal_mask(tq, tk, offset, args.window, &q.device()).logical_not();
        s = s.masked_fill(&hidden, f64::NEG_INFINITY);
    }
    if let Some(lengths) = &args.key_lengths {
        s = s.masked_fill(&padding(lengths, tk).t(), f64::NEG_INFINITY);
    }
    let top = s.max_keepdims(-1);
    // A query that may attend to nothing: any finite shift will do, its weights are e^(−∞) = 0 and its sum is 0.
    let shift = top.masked_fill(&top.eq_scalar(f64::NEG_INFINITY), 0.0);
    let e = s.sub(&shift).exp();
    let sum = e.sum_keepdims(-1);
    let lse = sum.log().add(&shift).squeeze(-1);
    let mut p = e.div(&sum.masked_fill(&sum.eq_scalar(0.0), 1.0));
    if let Some(dropout) = args.dropout {
        p = p.dropout_with(dropout.p, dropout.state);
    }
    (p, lse)
}

impl AttentionOptions {
    /// Fails, as the op would, unless queries, keys, values and these options fit together.
    #[track_caller]
    pub fn check(&self, query: &Tensor, key: &Tensor, value: &Tensor) {
        prepare(query, key, value, self);
    }
}

impl Tensor {
    /// `O = dropout(softmax(scale · Q Kᵀ + mask)) V`.
    ///
    /// Queries (this) are `[B, H, Tq, D]`, keys `[B, Hₖ, Tk, D]`, values `[B, Hₖ, Tk, Dᵥ]`; the result is
    /// `[B, H, Tq, Dᵥ]`. `H` is a multiple of `Hₖ`: `H/Hₖ` neighbouring query heads share a key head. A query that may
    /// attend to nothing gives zeros. dtypes are promoted, half types are summed, and their softmax taken, in f32. The
    /// gradients of bf16 come from weights rounded to bf16 on CPUs that multiply it.
    ///
    /// # Panics
    /// If shapes or dtypes do not fit, or a number lies outside its domain.
    ///
    /// ```
    /// use ferrograd_tensor::{Tensor, ops::attention::AttentionOptions};
    /// let (q, v) = (Tensor::ones([1, 2, 3, 4]), Tensor::new([5.0, 7.0f32]).reshape([1, 1, 2, 1]));
    /// let y = q.scaled_dot_product_attention(&Tensor::ones([1, 1, 2, 4]), &v, &AttentionOptions::default());
    /// assert_eq!(y.to_vec::<f32>(), [6.0; 6]); // equal scores: the mean of the values
    /// ```
    #[track_caller]
    pub fn scaled_dot_product_attention(&self, key: &Tensor, value: &Tensor, options: &AttentionOptions) -> Tensor {
        self.attention_forward(key, value, options).0
    }

    /// The same, with `logsumexp(scale · Q Kᵀ + mask)` `[B, H, Tq]` (accumulator dtype) for
    /// [`attention_backward`](Tensor::attention_backward).
    #[track_caller]
    pub fn attention_forward(&self, key: &Tensor, value: &Tensor, options: &AttentionOptions) -> (Tensor, Tensor) {
        let ([q, k, v], args) = prepare(self, key, value, options);
        if let Some(result) = self.device().backend().attention(&q, &k, &v, &args) {
            return result;
        }
        let (dtype, wide) = (q.dtype(), q.dtype().accumulator());
        let (p, lse) = weights(&q.to_dtype(wide), &k.to_dtype(wide), &args);
        let v = match &args.key_lengths {
            // Not even weights of 0 make a number of whatever padding may be.
            Some(lengths) => v.masked_fill(&padding(lengths, v.dim(2)), 0.0),
            None => v,
        };
        let out = p.matmul(&repeat_heads(&v.to_dtype(wide), q.dim(1)));
        (out.to_dtype(dtype), lse)
    }

    /// The gradients of [`attention_forward`](Tensor::attention_forward) from its arguments and results and the gradient
    /// `d_out` of its output, if the backend has a fused kernel for them; the float mask's only if `mask_gradient`.
    #[track_caller]
    pub fn attention_backward(
        &self,
        key: &Tensor,
        value: &Tensor,
        options: &AttentionOptions,
        (out, lse): (&Tensor, &Tensor),
        d_out: &Tensor,
        mask_gradient: bool,
    ) -> Option<AttentionGradients> {
        let ([q, k, v], args) = prepare(self, key, value, options);
        ensure!(
            d_out.shape() == out.shape() && out.rank() == 4,
            Shape,
            OP,
            "the output's gradient {} must have the output's shape {}",
            d_out.shape(),
            out.shape()
        );
        let mask = options.mask.as_ref().filter(|mask| mask_gradient && mask.dtype().is_float());
        let d_out = d_out.to_dtype(q.dtype());
        let backend = self.device().backend();
        let mut gradients = backend.attention_backward(&q, &k, &v, &args, (out, lse), &d_out, mask.is_some())?;
        gradients.query = gradients.query.to_dtype(self.dtype());
        gradients.key = gradients.key.to_dtype(key.dtype());
        gradients.value = gradients.value.to_dtype(value.dtype());
        if let (Some(mask), Some(gradient)) = (mask, &gradients.mask) {
            gradients.mask = Some(gradient.sum_to(mask.shape()).to_dtype(mask.dtype()));
        }
        Some(gradients)
    }

    /// The weights `dropout(softmax(scale · Q Kᵀ + mask))` `[B, H, Tq, Tk]` themselves, for those who want to see them.
    #[track_caller]
    pub fn attention_weights(&self, key: &Tensor, options: &AttentionOptions) -> Tensor {
        let ([q, k, _], args) = prepare(self, key, key, options);
        let wide = q.dtype().accumulator();
        weights(&q.to_dtype(wide), &k.to_dtype(wide), &args).0.to_dtype(q.dtype())
    }
}
