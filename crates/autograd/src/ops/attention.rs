//! Scaled dot-product attention: flash-style kernels that never store the weights, backward included.

use super::cast::promote;
use super::composition::backward_of_composed;
use crate::{Function, Saved, Var, autocast};
use ferrograd_tensor::ops::attention::{AttentionOptions as Resolved, DropoutStream, causal_mask, padding};
use ferrograd_tensor::random::{reserve, with_rng_state};
use ferrograd_tensor::{DType, Tensor, ensure};

const OP: &str = "scaled_dot_product_attention";

/// How [`Var::scaled_dot_product_attention`] attends.
#[derive(Clone, Debug, Default)]
pub struct AttentionOptions {
    /// Broadcasts to `[B, H, Tq, Tk]`. Bool: true where a query may attend to a key. Float: added to the scaled scores.
    pub mask: Option<Tensor>,
    /// A float mask that is differentiated (relative position biases). Together with `mask`, both hold.
    pub mask_var: Option<Var>,
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
    /// The probability with which a weight is dropped; kept ones are divided by `1 − dropout`. Always active: layers set
    /// it in training only. Takes one stream of the generator unless it is 0.
    pub dropout: f64,
}

impl AttentionOptions {
    /// What does not need a gradient, and the mask that does.
    #[track_caller]
    fn resolve(&self) -> (Resolved, Option<Var>) {
        ensure!(
            (0.0..=1.0).contains(&self.dropout),
            Value,
            OP,
            "the dropout probability {} is not in [0, 1]",
            self.dropout
        );
        let (mask, mask_var) = match (&self.mask, &self.mask_var) {
            (Some(mask), Some(bias)) => {
                let also = if mask.dtype() == DType::Bool {
                    let zero = Tensor::full_on((), 0.0, bias.dtype(), &mask.device());
                    mask.where_(&zero, &zero.full_like(f64::NEG_INFINITY))
                } else {
                    mask.clone()
                };
                (None, Some(bias + &also))
            }
            (mask, bias) => (mask.clone(), bias.clone()),
        };
        let dropout = (self.dropout > 0.0).then(|| DropoutStream { p: self.dropout, state: reserve(1) });
        let Self { causal, causal_offset, window, scale, .. } = *self;
        let key_lengths = self.key_lengths.clone();
        (Resolved { mask, causal, causal_offset, window, key_lengths, scale, dropout }, mask_var)
    }
}

/// `O = dropout(softmax(scale · Q Kᵀ + mask)) V`. Inputs: queries, keys, values and perhaps a float mask.
struct Attention(Resolved);

impl Attention {
    fn options(&self, mask: Option<&Tensor>) -> Resolved {
        let mut options = self.0.clone();
        options.mask = mask.cloned().or(options.mask);
        options
    }
}

impl Function for Attention {
    fn name(&self) -> &'static str {
        OP
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let (out, lse) = x[0].attention_forward(&x[1], &x[2], &self.options(x.get(3)));
        saved.save_inputs();
        saved.save_output(0);
        saved.save(lse);
        vec![out]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let x: Vec<Tensor> = (0..saved.num_inputs()).map(|i| saved.input(i).into_tensor()).collect();
        let (out, d_out) = (saved.output(0), g[0].as_ref().unwrap());
        let train_mask = x.len() > 3 && saved.needs_grad(3);
        let results = (out.tensor(), saved.tensor(0));
        let options = self.options(x.get(3));
        let Some(found) = x[0].attention_backward(&x[1], &x[2], &options, results, d_out.tensor(), train_mask) else {
            return backward_of_composed(self, saved, g);
        };
        let gradients = [Some(found.query), Some(found.key), Some(found.value), found.mask];
        gradients.into_iter().take(x.len()).map(|g| g.map(Var::constant)).collect()
    }
    fn composed(&self, x: &[Var]) -> Option<Vec<Var>> {
        let out = autocast(DType::F32, || {
            let p = weights(&x[0], &x[1], &self.0, x.get(3));
            p.matmul(&repeat_heads(&there(&x[2], &self.0).to_dtype(p.dtype()), x[0].dim(1)))
        });
        Some(vec![out.to_dtype(x[0].dtype())])
    }
}

/// Every key head as often as query heads share it: `[B, Hₖ, T, D]` to `[B, H, T, D]`.
fn repeat_heads(x: &Var, h: usize) -> Var {
    let [b, hk, t, d]: [usize; 4] = x.dims_of(OP);
    if h == hk {
        return x.clone();
    }
    x.reshape([b, hk, 1, t, d]).expand([b, hk, h / hk, t, d]).reshape([b, h, t, d])
}

/// Keys or values with zeros for padding: not even weights of 0 make a number of whatever it may be.
fn there(x: &Var, options: &Resolved) -> Var {
    match &options.key_lengths {
        Some(lengths) => x.masked_fill(&padding(lengths, x.dim(2)), 0.0),
        None => x.clone(),
    }
}

/// `dropout(softmax(scale · Q Kᵀ + mask))` in simple operations and the accumulator dtype. Outside of autocast.
fn weights(q: &Var, k: &Var, options: &Resolved, mask: Option<&Var>) -> Var {
    let [_, h, tq, d]: [usize; 4] = q.dims_of(OP);
    let (tk, wide) = (k.dim(2), q.dtype().accumulator());
    let scale = options.scale.unwrap_or(1.0 / (d.max(1) as f64).sqrt());
    let k = there(k, options).to_dtype(wide);
    let mut s = q.to_dtype(wide).mul_scalar(scale).matmul(&repeat_heads(&k, h).t());
    if tk == 0 {
        return s;
    }
    match (mask, &options.mask) {
        (Some(mask), _) => s = s.add(&mask.to_dtype(wide)),
        (None, Some(mask)) if mask.dtype() == DType::Bool => {
            s = s.masked_fill(&mask.logical_not(), f64::NEG_INFINITY);
        }
        (None, Some(mask)) => s = s.add(&Var::constant(mask.to_dtype(wide))),
        (None, None) => {}
    }
    if options.causal {
        let hidden = causal_mask(tq, tk, options.causal_offset, options.window, &q.device()).logical_not();
        s = s.masked_fill(&hidden, f64::NEG_INFINITY);
    }
    if let Some(lengths) = &options.key_lengths {
        s = s.masked_fill(&padding(lengths, tk).t(), f64::NEG_INFINITY);
    }
    // Softmax does not change with a shift, so the shift is a constant. A query that may attend to nothing has the
    // weights e^(−∞) = 0; its sum, 0, is replaced by 1.
    let top = s.tensor().max_keepdims(-1);
    let e = (s - &top.masked_fill(&top.eq_scalar(f64::NEG_INFINITY), 0.0)).exp();
    let sum = e.sum_keepdims(-1);
    let nothing = sum.tensor().eq_scalar(0.0).to_dtype(wide);
    let p = e.div(&(sum + &nothing));
    match options.dropout {
        Some(DropoutStream { p: probability, state }) => with_rng_state(state, || p.dropout(probability)),
        None => p,
    }
}

impl Var {
    /// `O = dropout(softmax(scale · Q Kᵀ + mask)) V`, Vaswani et al. 2017; see
    /// [`Tensor::scaled_dot_product_attention`].
    ///
    /// Queries (this) are `[B, H, Tq, D]`, keys `[B, Hₖ, Tk, D]`, values `[B, Hₖ, Tk, Dᵥ]`, `H` a multiple of `Hₖ`; the
    /// result is `[B, H, Tq, Dᵥ]`. A query that may attend to nothing gives zeros, and has and causes zero gradients.
    /// dtypes are promoted; computes in the autocast dtype. Neither forward nor backward stores the weights; a second
    /// derivative does.
    ///
    /// # Panics
    /// If shapes or dtypes do not fit, or a number lies outside its domain.
    #[track_caller]
    pub fn scaled_dot_product_attention(&self, key: &Var, value: &Var, options: &AttentionOptions) -> Var {
        let [q, k, v] = promote(OP, [&self.lowered(), &key.lowered(), &value.lowered()]);
        let (mut resolved, mask) = options.resolve();
        match mask {
            Some(mask) if mask.requires_grad() => Attention(resolved).apply1(&[&q, &k, &v, &mask]),
            mask => {
                resolved.mask = mask.map(Var::into_tensor).or(resolved.mask);
                Attention(resolved).apply1(&[&q, &k, &v])
            }
        }
    }

    /// The weights themselves, `dropout(softmax(scale · Q Kᵀ + mask))` `[B, H, Tq, Tk]`, for those who want to see them:
    /// their product with the values is the attention. Not fused, and they take `Tq · Tk` memory.
    #[track_caller]
    pub fn attention_weights(&self, key: &Var, options: &AttentionOptions) -> Var {
        let [q, k] = promote(OP, [&self.lowered(), &key.lowered()]);
        let (mut resolved, mask) = options.resolve();
        resolved.mask = mask.as_ref().map(|mask| mask.tensor().clone()).or(resolved.mask);
        resolved.check(q.tensor(), k.tensor(), k.tensor());
        autocast(DType::F32, || weights(&q, &k, &resolved, mask.as_ref().filter(|m| m.dtype().is_float())))
            .to_dtype(q.dtype())
    }
}
