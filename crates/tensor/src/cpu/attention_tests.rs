//! The tiled attention kernels against the textbook's, and their gradients against central differences.

use super::attention::attention_forward;
use super::attention_backward::{AttentionGradients, attention_backward};
use super::{
    Attention, AttentionDropout, AttentionElement, AttentionMask, AttentionShape, DropoutMask, Operand, Output,
};
use half::bf16;
use num_traits::{Float, NumCast, ToPrimitive};
use proptest::prelude::*;

/// SplitMix64.
pub(super) struct Rng(pub u64);
impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(super) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    pub(super) fn numbers(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| 2.0 * self.uniform() - 1.0).collect()
    }
}

/// An array with its own strides.
#[derive(Clone)]
struct Array<T> {
    data: Vec<T>,
    offset: usize,
    strides: [isize; 4],
    dims: [usize; 4],
}

impl<T: Copy> Array<T> {
    /// Any order of dimensions, gaps, reversed dimensions, an offset; `broadcast` dimensions have stride zero.
    fn new(rng: &mut Rng, dims: [usize; 4], broadcast: [bool; 4], mut make: impl FnMut(&mut Rng) -> T) -> Self {
        let mut order = [0, 1, 2, 3];
        for i in (1..4).rev() {
            order.swap(i, rng.below(i + 1));
        }
        if rng.below(3) == 0 {
            order = [3, 2, 1, 0];
        }
        let (mut size, mut strides, mut offset) = (1 + rng.below(2) * rng.below(2), [0; 4], rng.below(4));
        for d in order {
            if broadcast[d] || dims[d] == 0 {
                continue;
            }
            strides[d] = size as isize;
            if rng.below(4) == 0 {
                strides[d] = -strides[d];
                offset += (dims[d] - 1) * size;
            }
            size = size * dims[d] + rng.below(3);
        }
        let data = (0..size + 8).map(|_| make(rng)).collect();
        Array { data, offset, strides, dims }
    }
    fn operand(&self) -> Operand<'_, T> {
        Operand { data: &self.data, offset: self.offset, strides: self.strides }
    }
    fn at(&self, i: [usize; 4]) -> usize {
        (self.offset as isize + i.iter().zip(self.strides).map(|(&i, s)| i as isize * s).sum::<isize>()) as usize
    }
    fn get(&self, i: [usize; 4]) -> T {
        self.data[self.at(i)]
    }
}

fn indices(dims: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    let [_, b, c, d] = dims;
    (0..dims.iter().product()).map(move |n: usize| [n / (b * c * d), n / (c * d) % b, n / d % c, n % d])
}

#[derive(Clone)]
struct Case {
    shape: AttentionShape,
    q: Array<f64>,
    k: Array<f64>,
    v: Array<f64>,
    additive: Option<Array<f64>>,
    boolean: Option<Array<bool>>,
    causal: Option<isize>,
    window: Option<usize>,
    key_lengths: Option<Vec<usize>>,
    dropout: Option<(f64, u64)>,
    grad: Array<f64>,
    /// The order in memory of the results: `[B, T, H, D]`.
    time_first: bool,
}

fn keeps(p: f64, seed: u64) -> impl Fn(u64) -> bool + Sync + Copy {
    move |i| Rng(seed ^ i.wrapping_mul(0x1234_5678_9abc_def1)).uniform() >= p
}

const SCALE: f64 = 0.7;

impl Case {
    /// `options`: bit 0 causal, 1–2 mask (none, additive, boolean, padding), 3 dropout.
    fn new(shape: AttentionShape, options: u32, seed: u64) -> Self {
        let AttentionShape { b, h, hk, tq, tk, d, dv } = shape;
        let rng = &mut Rng(seed);
        let number = |rng: &mut Rng| 2.0 * rng.uniform() - 1.0;
        let any = |rng: &mut Rng| [0; 4].map(|_| rng.below(2) == 0);
        let scores = [b, h, tq, tk];
        Case {
            shape,
            q: Array::new(rng, [b, h, tq, d], [false; 4], number),
            k: Array::new(rng, [b, hk, tk, d], [false; 4], number),
            v: Array::new(rng, [b, hk, tk, dv], [false; 4], number),
            additive: (options >> 1 & 3 == 1).then(|| {
                let broadcast = any(rng);
                Array::new(rng, scores, broadcast, |r| if r.below(5) == 0 { f64::NEG_INFINITY } else { r.uniform() })
            }),
            boolean: match options >> 1 & 3 {
                2 => {
                    let broadcast = any(rng);
                    Some(Array::new(rng, scores, broadcast, |r| r.below(3) > 0))
                }
                3 => {
                    let mut mask = Array::new(rng, scores, [false, true, true, false], |_| false);
                    for b in 0..b {
                        for j in 0..rng.below(tk + 1) {
                            let at = mask.at([b, 0, 0, j]);
                            mask.data[at] = true;
                        }
                    }
                    Some(mask)
                }
                _ => None,
            },
            causal: (options & 1 == 1).then(|| rng.below(5) as isize - 1),
            window: (options & 1 == 1 && rng.below(2) == 0).then(|| 1 + rng.below(tk + 2)),
            key_lengths: (rng.below(3) == 0).then(|| (0..b).map(|_| rng.below(tk + 1)).collect()),
            dropout: (options >> 3 & 1 == 1).then(|| (0.3, rng.next())),
            grad: Array::new(rng, [b, h, tq, dv], [false; 4], number),
            time_first: rng.below(2) == 0,
        }
    }
    /// The same with inputs that bf16 holds exactly.
    fn in_bf16(mut self) -> Self {
        for array in [&mut self.q, &mut self.k, &mut self.v, &mut self.grad] {
            array.data.iter_mut().for_each(|x| *x = bf16::from_f64(*x).to_f64());
        }
        self
    }

    fn run<T: Number, R>(&self, f: impl FnOnce(&Attention<T>, Operand<T>) -> R) -> R {
        fn cast<T: NumCast>(a: &Array<f64>) -> Array<T> {
            let data = a.data.iter().map(|&x| T::from(x).unwrap()).collect();
            Array { data, offset: a.offset, strides: a.strides, dims: a.dims }
        }
        let (q, k, v, grad) = (cast(&self.q), cast(&self.k), cast(&self.v), cast(&self.grad));
        let additive = self.additive.as_ref().map(cast);
        let keep = self.dropout.map(|(p, seed)| keeps(p, seed));
        let mask = match (&additive, &self.boolean) {
            (Some(m), _) => Some(AttentionMask::Additive(m.operand())),
            (_, Some(m)) => Some(AttentionMask::Boolean(m.operand())),
            _ => None,
        };
        let args = Attention {
            shape: self.shape,
            q: q.operand(),
            k: k.operand(),
            v: v.operand(),
            scale: NumCast::from(SCALE).unwrap(),
            causal: self.causal,
            window: self.window,
            key_lengths: self.key_lengths.as_deref(),
            mask,
            dropout: keep
                .as_ref()
                .map(|mask| AttentionDropout { p: self.dropout.unwrap().0, mask: mask as &dyn DropoutMask }),
        };
        f(&args, grad.operand())
    }

    /// What is written to an output of the shape `dims`, in row-major order.
    fn written<T: Number>(&self, dims: [usize; 4], write: impl FnOnce(Output<T>)) -> Vec<T> {
        let [_, h, t, d] = dims;
        let mut data = vec![T::from(f64::NAN).unwrap(); dims.iter().product()];
        write(Output::new(&mut data, dims, self.time_first));
        if !self.time_first {
            return data;
        }
        indices(dims).map(|[b, head, i, x]| data[((b * t + i) * h + head) * d + x]).collect()
    }

    fn forward<T: Number>(&self) -> (Vec<T>, Vec<T::Acc>) {
        let AttentionShape { b, h, tq, dv, .. } = self.shape;
        let mut lse = vec![T::Acc::nan(); b * h * tq];
        let out = self.written([b, h, tq, dv], |out| self.run(|args, _| attention_forward(args, out, &mut lse)));
        (out, lse)
    }

    /// `[dq, dk, dv, dmask]`, contiguous.
    fn backward(&self, with_mask: bool) -> [Vec<f64>; 4] {
        self.backward_as::<f64>(with_mask)
    }

    fn backward_as<T: Number>(&self, with_mask: bool) -> [Vec<f64>; 4] {
        let AttentionShape { b, h, hk, tq, tk, d, dv } = self.shape;
        let (out, lse) = self.forward::<T>();
        let out = Operand::contiguous(&out, [b, h, tq, dv]);
        let mut dm = vec![T::Acc::nan(); if with_mask { b * h * tq * tk } else { 0 }];
        let [mut dk, mut d_v] = [vec![], vec![]];
        let dq = self.written::<T>([b, h, tq, d], |dq| {
            dk = self.written([b, hk, tk, d], |dk| {
                d_v = self.written([b, hk, tk, dv], |dv| {
                    let gradients = AttentionGradients { dq, dk, dv, d_mask: with_mask.then_some(&mut dm[..]) };
                    self.run(|args, grad| attention_backward(args, out, &lse, grad, gradients));
                })
            })
        });
        [widen(&dq), widen(&dk), widen(&d_v), widen(&dm)]
    }

    /// The textbook: one row of scores at a time. `bias` is added to the scores.
    fn textbook(&self, bias: Option<&[f64]>) -> (Vec<f64>, Vec<f64>) {
        let AttentionShape { b, h, hk, tq, tk, d, dv } = self.shape;
        let (mut out, mut lse) = (vec![], vec![]);
        for [b, head, i, _] in indices([b, h, tq, 1]) {
            let kv = head / (h / hk);
            let row = ((b * h + head) * tq + i) * tk;
            let score = |j: usize| {
                let dot: f64 = (0..d).map(|x| self.q.get([b, head, i, x]) * self.k.get([b, kv, j, x])).sum();
                let back = self.causal.map_or(0, |offset| i as isize + offset - j as isize);
                let seen = back >= 0
                    && self.key_lengths.as_ref().is_none_or(|lengths| j < lengths[b])
                    && self.window.is_none_or(|window| back < window as isize)
                    && self.boolean.as_ref().is_none_or(|m| m.get([b, head, i, j]));
                let mask = self.additive.as_ref().map_or(0.0, |m| m.get([b, head, i, j]));
                let bias = bias.map_or(0.0, |x| x[row + j]);
                if seen { SCALE * dot + mask + bias } else { f64::NEG_INFINITY }
            };
            let scores: Vec<f64> = (0..tk).map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| if max > f64::NEG_INFINITY { (s - max).exp() } else { 0.0 }).sum();
            lse.push(if sum > 0.0 { max + sum.ln() } else { f64::NEG_INFINITY });
            for x in 0..dv {
                let weighted = |j: usize| {
                    let p = if sum > 0.0 { (scores[j] - max).exp() / sum } else { 0.0 };
                    let kept = self.dropout.map_or(1.0, |(rate, seed)| {
                        if keeps(rate, seed)((row + j) as u64) { 1.0 / (1.0 - rate) } else { 0.0 }
                    });
                    p * kept * self.v.get([b, kv, j, x])
                };
                out.push((0..tk).map(weighted).sum());
            }
        }
        (out, lse)
    }

    fn loss(&self, bias: Option<&[f64]>) -> f64 {
        let AttentionShape { b, h, tq, dv, .. } = self.shape;
        let out = self.textbook(bias).0;
        indices([b, h, tq, dv]).zip(out).map(|(i, o)| o * self.grad.get(i)).sum()
    }

    /// The derivative of the loss along a direction in which only `input` moves; `direction` is contiguous.
    fn slope(&self, input: usize, direction: &[f64]) -> f64 {
        let eps = 1e-5;
        let side = |sign: f64| {
            let mut case = self.clone();
            let array = match input {
                0 => &mut case.q,
                1 => &mut case.k,
                2 => &mut case.v,
                _ => {
                    let bias: Vec<f64> = direction.iter().map(|x| sign * eps * x).collect();
                    return case.loss(Some(&bias));
                }
            };
            for (i, x) in indices(array.dims).zip(direction) {
                let at = array.at(i);
                array.data[at] += sign * eps * x;
            }
            case.loss(None)
        };
        (side(1.0) - side(-1.0)) / (2.0 * eps)
    }
}

pub(super) fn assert_close(name: &str, a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len(), "{name}: lengths");
    for (n, (x, y)) in a.iter().zip(b).enumerate() {
        let ok = x == y || (x - y).abs() <= tolerance * (1.0 + y.abs());
        assert!(ok, "{name}[{n}]: {x} is not {y}");
    }
}

/// The types that attention computes in, for tests.
trait Number: AttentionElement + NumCast {}
impl<T: AttentionElement + NumCast> Number for T {}

fn widen<T: ToPrimitive>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| x.to_f64().unwrap()).collect()
}

fn shape() -> impl Strategy<Value = AttentionShape> {
    (0usize..3, 1usize..3, 1usize..4, 0usize..6, 0usize..7, 1usize..5, 1usize..4)
        .prop_map(|(b, hk, group, tq, tk, d, dv)| AttentionShape { b, h: hk * group, hk, tq, tk, d, dv })
}

/// Shapes that need several tiles.
fn large() -> impl Strategy<Value = AttentionShape> {
    (1usize..3, 1usize..3, 1usize..3, 1usize..150, 200usize..600, 1usize..9, 1usize..9)
        .prop_map(|(b, hk, group, tq, tk, d, dv)| AttentionShape { b, h: hk * group, hk, tq, tk, d, dv })
}

fn check_forward(case: &Case) {
    let (out, lse) = case.textbook(None);
    let (o, l) = case.forward::<f64>();
    assert_close("out", &o, &out, 1e-12);
    assert_close("lse", &l, &lse, 1e-12);
    // |scores| ≤ 0.7 · 8: their rounding in f32, some 8 · 2⁻²⁴ · 6, is the relative error of a weight.
    let (o, l) = case.forward::<f32>();
    assert_close("out (f32)", &widen(&o), &out, 1e-5);
    assert_close("lse (f32)", &widen(&l), &lse, 1e-5);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn forward_matches_the_textbook(shape in shape(), options in 0u32..16, seed: u64) {
        check_forward(&Case::new(shape, options, seed));
    }

    #[test]
    fn gradients_match_central_differences(shape in shape(), options in 0u32..16, seed: u64) {
        let case = Case::new(shape, options, seed);
        for (input, grad) in case.backward(true).iter().enumerate() {
            let mut direction = vec![0.0; grad.len()];
            let numeric: Vec<f64> = (0..grad.len().min(40)).map(|n| {
                direction.fill(0.0);
                direction[n] = 1.0;
                case.slope(input, &direction)
            }).collect();
            assert_close("gradient", &grad[..numeric.len()], &numeric, 1e-8);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn many_tiles(shape in large(), options in 0u32..16, seed: u64) {
        let case = Case::new(shape, options, seed);
        check_forward(&case);
        let whole = case.backward(true);
        // Without the mask's gradient the keys are dealt out to several tasks.
        let parts = case.backward(false);
        for input in 0..4 {
            let direction = Rng(seed ^ 99).numbers(whole[input].len());
            let slope: f64 = whole[input].iter().zip(&direction).map(|(g, x)| g * x).sum();
            assert_close("slope", &[slope], &[case.slope(input, &direction)], 1e-6);
            if input < 3 {
                assert_close("parts", &parts[input], &whole[input], 1e-12);
            }
        }
    }
}

/// bf16 is rounded with a relative error of at most `U`.
const U: f64 = 1.0 / 256.0;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    /// bf16 against f64 on the same numbers. Forward only the result is rounded; backward weights and scores are too.
    #[test]
    fn bf16_rounds_little(shape in large(), options in 0u32..16, seed: u64) {
        let case = Case::new(shape, options, seed).in_bf16();
        let (out, lse) = case.textbook(None);
        let (o, l) = case.forward::<bf16>();
        // Weights, which add up to at most 1/0.7, are good to U², as the sum of two bf16; values are at most 1.
        assert_close("lse", &widen(&l), &lse, 1e-5);
        prop_assert!(widen(&o).iter().zip(&out).all(|(o, want)| (o - want).abs() <= U * want.abs() + 1e-4));
        let exact = case.backward(true);
        let rounded = case.backward_as::<bf16>(true);
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        // Backward takes rowsum(dO ∘ O) of the rounded O from what is multiplied by a row of P, whose sum is 1. Where a query sees one
        // key nothing but this error is left.
        let AttentionShape { b, h, tq, d, dv, .. } = shape;
        let terms = indices([b, h, tq, dv]).zip(&out).map(|(i, o)| U * (case.grad.get(i) * o).abs()).collect::<Vec<_>>();
        let deltas = || terms.chunks(dv).map(|row| row.iter().sum::<f64>());
        let (of_queries, of_keys, length) = (norm(&mut deltas()), deltas().sum::<f64>(), SCALE * (d as f64).sqrt());
        let of_deltas = [length * of_queries, length * of_keys, 0.0, of_queries];
        for (n, name) in ["dq", "dk", "dv", "dmask"].into_iter().enumerate() {
            // Errors are relative to the terms of a sum, which cancel out in the sum: to its norm over all elements.
            let error = norm(&mut rounded[n].iter().zip(&exact[n]).map(|(x, y)| x - y));
            let size = norm(&mut exact[n].iter().copied());
            let bound = 4.0 * U * size + of_deltas[n] + 1e-6;
            prop_assert!(error <= bound, "{name}: {error} of {size}, more than {bound}");
        }
    }
}

#[test]
fn a_query_without_keys_gives_zeros() {
    let shape = AttentionShape { b: 1, h: 2, hk: 1, tq: 3, tk: 5, d: 4, dv: 4 };
    let mut case = Case::new(shape, 0, 1);
    case.causal = Some(-2);
    case.key_lengths = None;
    case.boolean = None;
    let (out, lse) = case.forward::<f32>();
    for head in 0..2 {
        assert!(out[head * 12..head * 12 + 8].iter().all(|&x| x == 0.0));
        assert!(lse[head * 3..head * 3 + 2].iter().all(|&x| x == f32::NEG_INFINITY));
    }
    case.causal = None;
    case.boolean = Some(Array { data: vec![false], offset: 0, strides: [0; 4], dims: [1, 2, 3, 5] });
    assert!(case.forward::<f32>().0.iter().all(|&x| x == 0.0));
    assert!(case.backward(true).iter().flatten().all(|&x| x == 0.0));
    case.boolean = None;
    case.additive =
        Some(Array { data: vec![f64::NEG_INFINITY; 15], offset: 0, strides: [0, 0, 5, 1], dims: [1, 2, 3, 5] });
    assert!(case.forward::<f32>().0.iter().all(|&x| x == 0.0));
    assert!(case.backward(true).iter().flatten().all(|&x| x == 0.0));
}

#[test]
fn nan_is_not_hidden() {
    let shape = AttentionShape { b: 1, h: 1, hk: 1, tq: 2, tk: 3, d: 4, dv: 2 };
    let mut case = Case::new(shape, 0, 1);
    case.key_lengths = None;
    case.q.data.fill(f64::NAN);
    assert!(case.forward::<f32>().0.iter().all(|x| x.is_nan()));
}

#[test]
fn dropping_everything_gives_zeros() {
    let shape = AttentionShape { b: 1, h: 1, hk: 1, tq: 2, tk: 3, d: 4, dv: 2 };
    let mut case = Case::new(shape, 0, 1);
    case.dropout = Some((1.0, 7));
    assert!(case.forward::<f64>().0.iter().all(|&x| x == 0.0));
    assert!(case.backward(true).iter().flatten().all(|&x| x == 0.0));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let shape = AttentionShape { b: 1, h: 4, hk: 2, tq: 130, tk: 300, d: 8, dv: 8 };
    let case = Case::new(shape, 1 | 2 | 8, 5);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| (case.forward::<f64>(), case.backward(false)))
    };
    assert_eq!(with(1), with(3));
}
