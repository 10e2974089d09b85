//! Attention of some sizes, and whether the card makes what the CPU makes in f64.

use crate::common::{card, counted, cuda, there};
use crate::layouts::Random;
use ferrograd_tensor::backend::Backend;
use ferrograd_tensor::cpu::CpuBackend;
use ferrograd_tensor::ops::attention::{AttentionArgs, AttentionGradients, AttentionOptions, DropoutStream};
use ferrograd_tensor::random::RngState;
use ferrograd_tensor::{DType, Tensor};

/// What a test attends with.
#[derive(Clone)]
pub struct Case {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
    pub args: AttentionArgs,
}

/// The sizes of a case: batches, heads, key heads, queries, keys, and the widths of keys and values.
pub type Sizes = [usize; 7];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mask {
    None,
    Boolean,
    /// As a padding of keys is: the same for all heads and queries.
    Padding,
    Additive,
}

impl Case {
    pub fn new(random: &mut Random, [b, h, hk, tq, tk, d, dv]: Sizes, dtype: DType) -> Case {
        let [q, k, v] = [[b, h, tq, d], [b, hk, tk, d], [b, hk, tk, dv]].map(|shape| random.values(&shape, dtype));
        let args = AttentionArgs {
            mask: None,
            causal: None,
            window: None,
            key_lengths: None,
            scale: 1.0 / (d as f64).sqrt(),
            dropout: None,
        };
        Case { q, k, v, args }
    }
    pub fn causal(mut self, offset: usize) -> Case {
        self.args.causal = Some(offset);
        self
    }
    pub fn window(mut self, window: usize) -> Case {
        self.args.window = Some(window);
        self
    }
    /// Some of each batch's keys, none of the first one's; those behind are no numbers, nor are their values.
    pub fn lengths(mut self, random: &mut Random) -> Case {
        let tk = self.k.dim(2);
        let lengths: Vec<i64> = (0..self.q.dim(0)).map(|b| random.below(tk + 1) as i64 * b.min(1) as i64).collect();
        for x in [&mut self.k, &mut self.v] {
            let [_, h, tk, d]: [usize; 4] = x.dims_of("test");
            let there = |i: usize| ((i / d % tk) as i64) < lengths[i / (h * tk * d)];
            let numbers = x.to_f64_vec().into_iter().enumerate();
            let numbers = numbers.map(|(i, x)| if there(i) { x } else { f64::NAN }).collect::<Vec<_>>();
            *x = Tensor::from_vec(numbers, x.shape()).to_dtype(x.dtype());
        }
        self.args.key_lengths = Some(Tensor::from_vec(lengths, self.q.dim(0)));
        self
    }
    pub fn dropout(mut self, p: f64) -> Case {
        self.args.dropout = Some(DropoutStream { p, state: RngState { seed: 3, offset: 1 << 40 } });
        self
    }
    /// Every query of the first batch's second head sees nothing of a boolean mask, nor does every fifth of an additive one.
    pub fn mask(mut self, random: &mut Random, mask: Mask) -> Case {
        let ([b, h, tq, _], [_, _, tk, _]): ([usize; 4], [usize; 4]) = (self.q.dims_of("test"), self.k.dims_of("test"));
        let wide = self.q.dtype().accumulator();
        let shape = if mask == Mask::Padding { [b, 1, 1, tk] } else { [b, h, tq, tk] };
        let numbers = (0..shape.iter().product()).map(|i: usize| match mask {
            Mask::Additive if i / tk % 5 == 1 || random.below(6) == 0 => f64::NEG_INFINITY,
            Mask::Additive => random.below(25) as f64 / 8.0 - 1.5,
            _ if mask == Mask::Boolean && i / (tq * tk) == 1 => 0.0,
            _ => (random.below(3) > 0) as u8 as f64,
        });
        let numbers = Tensor::from_vec(numbers.collect::<Vec<f64>>(), shape);
        let numbers = if mask == Mask::Additive { numbers.to_dtype(wide) } else { numbers.to_dtype(DType::Bool) };
        self.args.mask = (mask != Mask::None).then(|| numbers.expand([b, h, tq, tk]));
        self
    }
    /// The same numbers, that lie in memory as after a projection of all heads; `gap` more between the tokens.
    pub fn time_first(mut self, gap: usize) -> Case {
        for x in [&mut self.q, &mut self.k, &mut self.v] {
            let [b, h, t, d]: [usize; 4] = x.dims_of("test");
            let mut all = CpuBackend.full(&[b, t, h * d + gap].into(), x.dtype(), f64::NAN);
            let region = all.narrow(2, gap, h * d).reshape([b, t, h, d]).layout().clone();
            CpuBackend.write(&mut all, &region, &x.transpose(1, 2));
            *x = Tensor::from_buffer(all.buffer().clone(), region, x.dtype(), all.device()).transpose(1, 2);
        }
        self
    }

    pub fn on_the_card(&self) -> Case {
        let (mask, key_lengths) = (self.args.mask.as_ref().map(there), self.args.key_lengths.as_ref().map(there));
        let args = AttentionArgs { mask, key_lengths, ..self.args.clone() };
        Case { q: there(&self.q), k: there(&self.k), v: there(&self.v), args }
    }
    fn in_f64(&self) -> Case {
        let wide = |m: &Tensor| if m.dtype() == DType::Bool { m.clone() } else { m.to_dtype(DType::F64) };
        let args = AttentionArgs { mask: self.args.mask.as_ref().map(wide), ..self.args.clone() };
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|x| x.to_dtype(DType::F64));
        Case { q, k, v, args }
    }
    pub fn forward(&self, backend: &dyn Backend) -> Option<(Tensor, Tensor)> {
        backend.attention(&self.q, &self.k, &self.v, &self.args)
    }
    fn what(&self) -> String {
        let AttentionArgs { mask, causal, window, key_lengths, dropout, .. } = &self.args;
        let lengths = key_lengths.as_ref().map(|lengths| lengths.to_vec::<i64>());
        let mask = mask.as_ref().map(|m| (m.dtype(), m.layout().strides.clone()));
        let (q, k, v) = (self.q.shape(), self.k.shape(), self.v.shape());
        let dtype = self.q.dtype();
        format!(
            "{dtype} {q} × {k}, {v}, mask {mask:?}, causal {causal:?}, window {window:?}, lengths {lengths:?}, {dropout:?}, {:?}",
            self.q.layout().strides
        )
    }

    /// The relative error of a weight. Eighths have exact products, so that a score has the error of its factor and of what is
    /// added and subtracted, relative to the largest; a sum of weights has one rounding for each.
    fn weight_error(&self) -> f64 {
        let (d, tk) = (self.q.dim(3) as f64, self.k.dim(2) as f64);
        let largest = 1.5 * 1.5 * d * self.args.scale.abs() + if self.args.mask.is_some() { 1.5 } else { 0.0 };
        self.q.dtype().accumulator().epsilon() * (8.0 * largest + tk + 32.0)
    }
    /// What kept weights are multiplied by.
    fn kept(&self) -> f64 {
        self.args.dropout.map_or(1.0, |dropout| 1.0 / (1.0 - dropout.p).max(1e-3))
    }
}

/// Is each element of `got` that of `want`, but for what `bound` says of it?
#[track_caller]
fn within(what: &str, got: &Tensor, want: &Tensor, bound: impl Fn(usize, f64) -> f64) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    assert_eq!(got.device(), cuda(), "{what}");
    for (i, (g, w)) in got.to_f64_vec().into_iter().zip(want.to_f64_vec()).enumerate() {
        let ok = g == w || (g - w).abs() <= bound(i, w) || g.is_nan() && w.is_nan();
        assert!(ok, "{what}: element {i} is {g}, not {w} ± {:e}", bound(i, w));
    }
}

/// A half type rounds each weight, and the result.
fn narrow(dtype: DType) -> f64 {
    if dtype.is_half() { dtype.epsilon() / 2.0 } else { 0.0 }
}

/// Is what the card makes right? How many products of warpgroups it took for it, if anybody counts them.
#[track_caller]
pub fn check(case: &Case) -> Option<usize> {
    check_forward(case).1
}

/// What the forward pass gives, and the logarithms that the backward pass wants.
type Forward = (Tensor, Tensor);

/// The same, with what the card makes, and the CPU in f64.
#[track_caller]
fn check_forward(case: &Case) -> ([Forward; 2], Option<usize>) {
    let what = case.what();
    let on_the_card = case.on_the_card();
    let ((out, lse), products) = in_products(|| on_the_card.forward(card()).expect("a kernel"));
    let (want_out, want_lse) = case.in_f64().forward(&CpuBackend).expect("a kernel");
    let (dtype, error) = (case.q.dtype(), case.weight_error());
    assert_eq!((out.dtype(), lse.dtype()), (dtype, dtype.accumulator()), "{what}");
    // Values are at most 1½, and so is any mean of them.
    let of_weights = 1.5 * case.kept() * (2.0 * error + narrow(dtype));
    within(&format!("out of {what}"), &out, &want_out, |_, w| of_weights + narrow(dtype) * w.abs());
    within(&format!("lse of {what}"), &lse, &want_lse, |_, w| error * (1.0 + w.abs()));
    ([(out, lse), (want_out, want_lse)], products)
}

/// What `f` returns, and the products of warpgroups that it takes; nobody counts them on a card.
#[track_caller]
fn in_products<T, F: FnOnce() -> T>(f: F) -> (T, Option<usize>) {
    // What was launched may not have run yet.
    card().synchronize();
    let before = counted("emulator_count_wgmma");
    let y = f();
    card().synchronize();
    (y, counted("emulator_count_wgmma").zip(before).map(|(after, before)| after - before))
}

/// The same, and the gradients: products of both.
#[track_caller]
pub fn check_both(case: &Case, random: &mut Random) -> Option<[usize; 2]> {
    let (made, forward) = check_forward(case);
    let [b, h, tq, _]: [usize; 4] = case.q.dims_of("test");
    let widest = case.q.dim(3).max(case.v.dim(3));
    if case.q.dtype() == DType::F64 && widest > 64 {
        return None; // No kernel is so wide.
    }
    let backward = check_gradients(case, made, &random.values(&[b, h, tq, case.v.dim(3)], case.q.dtype()));
    forward.zip(backward).map(|(forward, backward)| [forward, backward])
}

/// Every key head as often as query heads share it.
fn repeat(x: &Tensor, h: usize) -> Tensor {
    let [b, hk, t, d]: [usize; 4] = x.dims_of("test");
    if hk == 0 { x.clone() } else { x.unsqueeze(2).expand([b, hk, h / hk, t, d]).reshape([b, h, t, d]) }
}
/// The sum over the query heads that share a key head.
fn of_key_heads(x: &Tensor, hk: usize) -> Tensor {
    let [b, h, t, d]: [usize; 4] = x.dims_of("test");
    if hk == 0 { x.clone() } else { x.reshape([b, hk, h / hk, t, d]).sum_keepdims(2).squeeze(2) }
}

/// The magnitudes of what gradients are sums of.
struct Magnitudes {
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
}

impl Magnitudes {
    /// `dS = P ∘ (M ∘ dO Vᵀ − rowsum(dO ∘ O))` with every term positive, and so on.
    fn of(case: &Case, out: &Tensor, g: &Tensor) -> Magnitudes {
        let Case { q, k, v, args } = case;
        let number = |x: &Tensor| x.masked_fill(&x.ne(x), 0.0);
        let (k, v) = (&number(k), &number(v));
        let (causal, causal_offset) = (args.causal.is_some(), args.causal.unwrap_or(0));
        let mask = args.mask.clone();
        let (window, scale, key_lengths) = (args.window, Some(args.scale), args.key_lengths.clone());
        let options = AttentionOptions { mask, causal, causal_offset, window, key_lengths, scale, dropout: None };
        let (h, hk, p) = (q.dim(1), k.dim(1), q.attention_weights(k, &options));
        let of_weights = g.abs().matmul(&repeat(&v.abs(), h).t()).mul_scalar(case.kept());
        let mask = p.mul(&of_weights.add(&g.mul(out).abs().sum_keepdims(-1)));
        let ds = mask.mul_scalar(args.scale.abs());
        Magnitudes {
            query: ds.matmul(&repeat(&k.abs(), h)),
            key: of_key_heads(&ds.t().matmul(&q.abs()), hk),
            value: of_key_heads(&p.t().matmul(&g.abs()), hk).mul_scalar(case.kept()),
            mask,
        }
    }
}

/// What this backend makes of an output's gradient.
#[track_caller]
pub fn backward(backend: &dyn Backend, case: &Case, made: Forward, g: &Tensor, mask: bool) -> AttentionGradients {
    let (Case { q, k, v, args }, (out, lse)) = (case, made);
    backend.attention_backward(q, k, v, args, (&out, &lse), g, mask).expect("a kernel")
}

/// The gradients, of an output's gradient of eighths as well; and how many products of warpgroups the card made for them, if anybody
/// counts them.
#[track_caller]
fn check_gradients(case: &Case, [made, exactly]: [Forward; 2], g: &Tensor) -> Option<usize> {
    let (dtype, what) = (case.q.dtype(), case.what());
    let ([_, h, tq, _], [_, hk, tk, dv]): ([usize; 4], [usize; 4]) = (case.q.dims_of("test"), case.v.dims_of("test"));
    let additive = case.args.mask.as_ref().is_some_and(|mask| mask.dtype() != DType::Bool);
    let (exact, g64) = (case.in_f64(), g.to_dtype(DType::F64));
    let (on_the_card, g_there) = (case.on_the_card(), there(g));
    let (out, _) = exactly.clone();
    let (got, products) = in_products(|| backward(card(), &on_the_card, made, &g_there, additive));
    let want = backward(&CpuBackend, &exact, exactly, &g64, additive);
    let magnitudes = Magnitudes::of(&exact, &out, &g64);
    // Of P, of O and the sum with it, of dS as an operand; and of each sum. What is too small for f16 becomes 0.
    let (epsilon, narrow) = (dtype.accumulator().epsilon(), narrow(dtype));
    let weights = 2.0 * case.weight_error();
    let of_scores = weights + narrow + dv as f64 * epsilon;
    let shared = h / hk.max(1) * tq;
    let tiny = if dtype == DType::F16 { 1e-7 * (tk + shared) as f64 } else { 0.0 };
    let near = |name: &str, got: &Tensor, want: &Tensor, magnitude: &Tensor, relative: f64, narrow: f64| {
        let magnitude = magnitude.to_f64_vec();
        let bound = |i: usize, w: f64| relative * magnitude[i] + narrow * w.abs() + tiny;
        within(&format!("{name} of {what}"), got, want, bound);
    };
    let sum = |terms: usize| terms as f64 * epsilon;
    near("dQ", &got.query, &want.query, &magnitudes.query, of_scores + narrow + sum(tk), narrow);
    near("dK", &got.key, &want.key, &magnitudes.key, of_scores + narrow + sum(shared), narrow);
    near("dV", &got.value, &want.value, &magnitudes.value, weights + narrow + sum(shared), narrow);
    assert_eq!(got.mask.is_some(), additive, "{what}");
    if let (Some(got), Some(want)) = (got.mask, want.mask) {
        near("dmask", &got, &want, &magnitudes.mask, of_scores, 0.0);
    }
    products
}
