//! Attention on the card against the CPU in f64: lengths that fill no tile, every kind of mask, and whatever may be together.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{card, cuda, there};
use ferrograd_tensor::backend::Backend;
use ferrograd_tensor::cpu::CpuBackend;
use ferrograd_tensor::ops::attention::{AttentionArgs, AttentionGradients, AttentionOptions, DropoutStream};
use ferrograd_tensor::random::RngState;
use ferrograd_tensor::{DType, Tensor};
use layouts::Random;

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// What a test attends with.
#[derive(Clone)]
struct Case {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    args: AttentionArgs,
}

/// The sizes of a case: batches, heads, key heads, queries, keys, and the widths of keys and values.
type Sizes = [usize; 7];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mask {
    None,
    Boolean,
    /// As a padding of keys is: the same for all heads and queries.
    Padding,
    Additive,
}

impl Case {
    fn new(random: &mut Random, [b, h, hk, tq, tk, d, dv]: Sizes, dtype: DType) -> Case {
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
    fn causal(mut self, offset: usize) -> Case {
        self.args.causal = Some(offset);
        self
    }
    fn window(mut self, window: usize) -> Case {
        self.args.window = Some(window);
        self
    }
    /// Some of each batch's keys, none of the first one's; those behind are no numbers, nor are their values.
    fn lengths(mut self, random: &mut Random) -> Case {
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
    fn dropout(mut self, p: f64) -> Case {
        self.args.dropout = Some(DropoutStream { p, state: RngState { seed: 3, offset: 1 << 40 } });
        self
    }
    /// Every query of the first batch's second head sees nothing of a boolean mask, nor does every fifth of an additive one.
    fn mask(mut self, random: &mut Random, mask: Mask) -> Case {
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
    fn time_first(mut self, gap: usize) -> Case {
        for x in [&mut self.q, &mut self.k, &mut self.v] {
            let [b, h, t, d]: [usize; 4] = x.dims_of("test");
            let mut all = CpuBackend.full(&[b, t, h * d + gap].into(), x.dtype(), f64::NAN);
            let region = all.narrow(2, gap, h * d).reshape([b, t, h, d]).layout().clone();
            CpuBackend.write(&mut all, &region, &x.transpose(1, 2));
            *x = Tensor::from_buffer(all.buffer().clone(), region, x.dtype(), all.device()).transpose(1, 2);
        }
        self
    }

    fn on_the_card(&self) -> Case {
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
    fn forward(&self, backend: &dyn Backend) -> Option<(Tensor, Tensor)> {
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

#[track_caller]
fn check(case: &Case) {
    let what = case.what();
    let (out, lse) = case.on_the_card().forward(card()).expect("a kernel");
    let (want_out, want_lse) = case.in_f64().forward(&CpuBackend).expect("a kernel");
    let (dtype, error) = (case.q.dtype(), case.weight_error());
    assert_eq!((out.dtype(), lse.dtype()), (dtype, dtype.accumulator()), "{what}");
    // Values are at most 1½, and so is any mean of them.
    let of_weights = 1.5 * case.kept() * (2.0 * error + narrow(dtype));
    within(&format!("out of {what}"), &out, &want_out, |_, w| of_weights + narrow(dtype) * w.abs());
    within(&format!("lse of {what}"), &lse, &want_lse, |_, w| error * (1.0 + w.abs()));
}

/// The same, and the gradients.
#[track_caller]
fn check_both(case: &Case, random: &mut Random) {
    check(case);
    let [b, h, tq, _]: [usize; 4] = case.q.dims_of("test");
    let widest = case.q.dim(3).max(case.v.dim(3));
    if case.q.dtype() == DType::F64 && widest > 64 {
        return; // No kernel is so wide.
    }
    check_gradients(case, &random.values(&[b, h, tq, case.v.dim(3)], case.q.dtype()));
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

/// The gradients, of an output's gradient of eighths as well.
#[track_caller]
fn check_gradients(case: &Case, g: &Tensor) {
    let (dtype, what) = (case.q.dtype(), case.what());
    let ([_, h, tq, _], [_, hk, tk, dv]): ([usize; 4], [usize; 4]) = (case.q.dims_of("test"), case.v.dims_of("test"));
    let additive = case.args.mask.as_ref().is_some_and(|mask| mask.dtype() != DType::Bool);
    let gradients = |backend: &dyn Backend, case: &Case, g: &Tensor| -> AttentionGradients {
        let (out, lse) = case.forward(backend).expect("a kernel");
        let Case { q, k, v, args } = case;
        backend.attention_backward(q, k, v, args, (&out, &lse), g, additive).expect("a kernel")
    };
    let (exact, g64) = (case.in_f64(), g.to_dtype(DType::F64));
    let got = gradients(card(), &case.on_the_card(), &there(g));
    let want = gradients(&CpuBackend, &exact, &g64);
    let (out, _) = exact.forward(&CpuBackend).expect("a kernel");
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
}

const MASKS: [Mask; 4] = [Mask::None, Mask::Boolean, Mask::Padding, Mask::Additive];

/// Lengths around those of tiles; widths that fill a program's and do not.
fn sizes(random: &mut Random) -> Vec<Sizes> {
    const LENGTHS: [usize; 8] = [1, 15, 17, 63, 65, 64, 130, 200];
    const WIDTHS: [usize; 6] = [8, 32, 40, 64, 72, 128];
    let mut sizes = vec![[1, 2, 2, 130, 65, 64, 64], [2, 2, 1, 17, 200, 32, 32], [1, 2, 2, 33, 50, 200, 256]];
    for i in 0..6 {
        let hk = 1 + random.below(2);
        let [tq, tk] = [0, 1].map(|_| LENGTHS[random.below(8)]);
        sizes.push([1 + random.below(2), hk * (1 + random.below(3)), hk, tq, tk, WIDTHS[i], WIDTHS[random.below(6)]]);
    }
    sizes
}

/// No f64 as wide as that.
fn there_is(dtype: DType, sizes: &Sizes) -> bool {
    dtype != DType::F64 || sizes[5].max(sizes[6]) <= 128
}

#[test]
fn attention_of_any_length_under_any_mask() {
    let mut random = Random(1);
    for dtype in FLOATS {
        for sizes in sizes(&mut random).into_iter().filter(|sizes| there_is(dtype, sizes)) {
            check_both(&Case::new(&mut random, sizes, dtype), &mut random);
            for mask in MASKS {
                let case = Case::new(&mut random, sizes, dtype).mask(&mut random, mask);
                let case = match random.below(3) {
                    0 => case,
                    1 => case.causal(random.below(4) * 20),
                    _ => case.causal(random.below(3)).dropout(0.25),
                };
                check_both(&case, &mut random);
            }
        }
    }
}

#[test]
fn causal_attention() {
    let mut random = Random(2);
    for dtype in FLOATS {
        for (tq, tk, offset) in
            [(130, 130, 0), (65, 200, 135), (200, 65, 0), (1, 100, 99), (70, 30, 1 << 40), (64, 64, 1)]
        {
            check_both(&Case::new(&mut random, [1, 2, 1, tq, tk, 32, 32], dtype).causal(offset), &mut random);
        }
    }
}

#[test]
fn sliding_windows() {
    let mut random = Random(9);
    for dtype in FLOATS {
        for (tq, tk, offset, window) in [
            (200, 200, 0, 1),
            (200, 200, 0, 70),
            (130, 200, 70, 33),
            (65, 30, 0, 500),
            (70, 40, 50, 20),
            (33, 20, 1 << 40, 1 << 40),
            (1, 300, 299, 130),
            (1, 300, 500, 50),
        ] {
            let case = Case::new(&mut random, [1, 2, 1, tq, tk, 32, 32], dtype).causal(offset).window(window);
            check_both(&case, &mut random);
            check_both(&case.dropout(0.25).mask(&mut random, Mask::Additive), &mut random);
        }
    }
}

#[test]
fn keys_of_several_lengths() {
    let mut random = Random(10);
    for dtype in FLOATS {
        for (b, tq, tk) in [(4, 33, 130), (3, 70, 65), (3, 130, 17), (4, 1, 300), (2, 5, 1)] {
            let case = Case::new(&mut random, [b, 4, 2, tq, tk, 32, 40], dtype).lengths(&mut random);
            check_both(&case, &mut random);
            check_both(&case.clone().causal(10).window(30), &mut random);
            check_both(&case.mask(&mut random, Mask::Boolean).dropout(0.25), &mut random);
        }
    }
}

#[test]
fn attention_however_heads_lie() {
    let mut random = Random(3);
    for dtype in FLOATS {
        for gap in [0, 8, 3] {
            let case = Case::new(&mut random, [2, 4, 2, 33, 40, 32, 16], dtype).time_first(gap);
            check_both(&case, &mut random);
            // What takes all heads of a token together finds them together.
            let (out, _) = case.on_the_card().forward(card()).expect("a kernel");
            assert!(out.transpose(1, 2).is_contiguous());
        }
        let mut case = Case::new(&mut random, [1, 2, 2, 20, 20, 32, 32], dtype);
        for _ in 0..6 {
            case.q = random.strided(&[1, 2, 20, 32], dtype);
            case.k = random.strided(&[1, 2, 20, 32], dtype);
            case.v = random.strided(&[1, 2, 20, 32], dtype);
            case.args.mask = Some(random.strided(&[1, 2, 20, 20], dtype.accumulator()));
            check_both(&case, &mut random);
        }
    }
}

#[test]
fn dropout_of_weights() {
    let mut random = Random(4);
    for dtype in FLOATS {
        for p in [0.1, 0.5, 1.0] {
            check_both(&Case::new(&mut random, [2, 2, 1, 33, 71, 32, 32], dtype).dropout(p), &mut random);
        }
    }
}

/// A single query is for kernels that cut its keys into splits.
#[test]
fn one_query() {
    let mut random = Random(8);
    let with_nan = |x: &Tensor| {
        let mut numbers = x.to_f64_vec();
        *numbers.last_mut().expect("a number") = f64::NAN;
        Tensor::from_vec(numbers, x.shape()).to_dtype(x.dtype())
    };
    for dtype in FLOATS {
        for (tk, d, dv) in [(1, 8, 32), (5, 64, 64), (127, 40, 72), (129, 128, 8), (300, 32, 200), (1000, 16, 128)] {
            let (h, hk) = [(1, 1), (2, 2), (6, 3)][random.below(3)];
            let sizes = [1 + random.below(2), h, hk, 1, tk, d, dv];
            if !there_is(dtype, &sizes) {
                continue;
            }
            for mask in MASKS {
                let case = Case::new(&mut random, sizes, dtype).mask(&mut random, mask).time_first(8);
                check(&case);
                check(&case.clone().causal(tk / 2));
                check(&Case { k: with_nan(&case.k), ..case.clone() });
                check(&Case { v: with_nan(&case.v), ..case });
            }
            let mut case = Case::new(&mut random, sizes, dtype);
            case.args.scale = -0.5;
            check(&case);
        }
        // No keys: an answer of zeros.
        check(&Case::new(&mut random, [1, 2, 1, 1, 0, 8, 8], dtype));
    }
}

#[test]
fn scales_of_any_sign() {
    let mut random = Random(5);
    for dtype in FLOATS {
        for scale in [-0.5, 0.0, 1.0] {
            let mut case = Case::new(&mut random, [1, 1, 1, 40, 70, 16, 16], dtype);
            case.args.scale = scale;
            check_both(&case, &mut random);
            check_both(&case.causal(3), &mut random);
        }
    }
}

#[test]
fn attention_of_nothing() {
    let mut random = Random(6);
    for dtype in FLOATS {
        for sizes in [[0, 2, 1, 3, 3, 8, 8], [1, 0, 1, 3, 3, 8, 8], [1, 2, 2, 0, 3, 8, 8], [1, 2, 2, 3, 0, 8, 8]] {
            check_both(&Case::new(&mut random, sizes, dtype), &mut random);
            check_both(&Case::new(&mut random, sizes, dtype).causal(1).dropout(0.5), &mut random);
        }
        // No rows, or rows of no whole chunks, are for the composition.
        for (d, dv) in [(8, 0), (8, 12), (7, 8), (264, 8)] {
            let case = Case::new(&mut random, [1, 2, 2, 3, 3, d, dv], dtype);
            assert!(case.on_the_card().forward(card()).is_none());
        }
    }
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    let mut random = Random(7);
    let with = |x: &Tensor, at: usize, value: f64| {
        let mut numbers = x.to_f64_vec();
        numbers[at] = value;
        Tensor::from_vec(numbers, x.shape()).to_dtype(x.dtype())
    };
    for dtype in FLOATS {
        for value in [f64::NAN, f64::INFINITY] {
            let case = Case::new(&mut random, [1, 1, 1, 40, 70, 16, 16], dtype);
            check(&Case { q: with(&case.q, 16 * 39, value), ..case.clone() });
            check(&Case { k: with(&case.k, 16 * 69 + 3, value), ..case.clone() });
            check(&Case { v: with(&case.v, 16 * 20, value), ..case });
        }
    }
}
