//! Every kernel at every level of vector instructions that this machine has, against the portable one: at sizes around the
//! vectors' widths, from memory that is contiguous, unaligned, transposed and sparse.
//!
//! The level is a property of the process, so this test starts itself once for each: the children write what they compute
//! to files, the parent compares.

mod layouts;

use ferrograd_tensor::cpu::level::Level;
use ferrograd_tensor::ops::attention::AttentionOptions;
use ferrograd_tensor::ops::gru::{gru, gru_backward};
use ferrograd_tensor::ops::lstm::{lstm, lstm_backward};
use ferrograd_tensor::ops::optimizer::{Adadelta, Adagrad, Adam, Lion, OptimizerStep, RmsProp, Sgd};
use ferrograd_tensor::ops::recurrence::{RecurrentWeights, SequenceArgs, SequenceGradients, SequenceOptions};
use ferrograd_tensor::ops::rnn::{RnnNonlinearity, rnn, rnn_backward};
use ferrograd_tensor::random::with_seed;
use ferrograd_tensor::{
    Activation, Conv2dOptions, CrossEntropy, DType, Device, Q8_0, QuantizedTensor, RotaryPairs, Tensor,
    load_safetensors, save_safetensors,
};
use layouts::Random;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const SIZES: [usize; 9] = [1, 7, 15, 16, 17, 31, 63, 64, 65];
const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::BF16, DType::F16];
/// Ways for a tensor to lie in memory.
const WAYS: usize = 4;

/// Set in a child: where its results go.
const OUT: &str = "FERROGRAD_TEST_LEVELS_OUT";

/// The elements of `x` in memory of another shape.
fn laid(x: &Tensor, way: usize) -> Tensor {
    let r = x.rank();
    match way {
        0 => x.contiguous(),
        // Behind another element, and rows an odd distance apart.
        1 => Tensor::cat(&[&x.narrow(-1, 0, 1), x], -1).narrow(-1, 1, x.dim(-1)),
        2 if r > 1 => x.transpose(-1, -2).contiguous().transpose(-1, -2),
        2 => x.flip(0).contiguous().flip(0),
        _ => x.unsqueeze(-1).expand([x.dims(), &[2]].concat()).contiguous().select(-1, 1),
    }
}

/// What is computed: names, results, and how far a result may be off, absolutely and relative to itself.
struct Results {
    random: Random,
    way: usize,
    all: Vec<(String, Tensor, f64)>,
}

impl Results {
    /// Numbers in [−1, 1), the next way of lying in memory.
    fn x(&mut self, shape: &[usize], dtype: DType) -> Tensor {
        let n = shape.iter().product();
        let values: Vec<f64> = (0..n).map(|_| self.random.below(1 << 20) as f64 / (1 << 19) as f64 - 1.0).collect();
        self.way += 1;
        laid(&Tensor::from_vec(values, shape).to_dtype(dtype), self.way % WAYS)
    }
    /// A result whose rounding errors in the sum's type are at most `errors` times its unit.
    fn push(&mut self, name: String, y: Tensor, errors: f64) {
        self.all.push((name, y, errors));
    }
}

/// What the rounding of a saved result to a half type adds to the errors, in units of the sum's type.
fn saved(dtype: DType) -> f64 {
    if dtype.is_half() { dtype.epsilon() / dtype.accumulator().epsilon() } else { 0.0 }
}

/// Everything, in a fixed order; the numbers that go in do not depend on the level.
fn compute() -> Vec<(String, Tensor, f64)> {
    let mut r = Results { random: Random(1), way: 0, all: Vec::new() };
    products(&mut r);
    elementwise(&mut r);
    rows(&mut r);
    attention(&mut r);
    recurrences(&mut r);
    optimizers(&mut r);
    others(&mut r);
    r.all
}

fn products(r: &mut Results) {
    for (i, m) in SIZES.into_iter().enumerate() {
        for (j, n) in SIZES.into_iter().enumerate() {
            let k = SIZES[(i + 2 * j) % SIZES.len()];
            let at = format!("[{m}, {k}] × [{k}, {n}]");
            for dtype in FLOATS {
                let (a, b) = (r.x(&[m, k], dtype), r.x(&[k, n], dtype));
                r.push(format!("matmul {dtype} {at}"), a.matmul(&b), k as f64);
                let (w, bias) = (r.x(&[n, k], dtype), r.x(&[n], dtype));
                r.push(format!("linear {dtype} {at}"), a.linear(&w, Some(&bias)), k as f64 + 1.0);
            }
            let [a, b] = [[m, k], [k, n]].map(|shape| r.x(&shape, DType::F32).mul_scalar(128.0).to_dtype(DType::I8));
            let (a, b) = (laid(&a, r.way % WAYS), laid(&b, (r.way + 1 + i) % WAYS));
            r.push(format!("int_mm {at}"), a.int_mm(&b), 0.0);
            for dtype in [DType::I8, DType::U8, DType::I32, DType::I64] {
                let c = a.to_dtype(dtype).matmul(&b.to_dtype(dtype));
                r.push(format!("matmul {dtype} {at}"), c, 0.0);
            }
            let w = QuantizedTensor::quantize(&r.x(&[n, 32 * (1 + j % 3)], DType::F32), &Q8_0);
            let x = r.x(&[m, w.shape()[1]], DType::F32);
            r.push(format!("matmul_quantized {at}"), x.matmul_quantized(&w), 2.0 * w.shape()[1] as f64);
        }
        // Matrix × vector, with rows longer than the vectors.
        for dtype in FLOATS {
            let (a, x) = (r.x(&[m, 1000 + m], dtype), r.x(&[1000 + m], dtype));
            r.push(format!("matrix × vector {dtype} {m}"), a.matmul(&x), 1000.0);
            r.push(format!("vector × matrix {dtype} {m}"), x.matmul(&a.t()), 1000.0);
        }
    }
}

fn elementwise(r: &mut Results) {
    type Op = fn(&Tensor) -> Tensor;
    let unary: [(&str, Op); 25] = [
        ("exp", Tensor::exp),
        ("expm1", Tensor::expm1),
        ("sin", Tensor::sin),
        ("cos", Tensor::cos),
        ("tanh", Tensor::tanh),
        ("sigmoid", Tensor::sigmoid),
        ("erf", Tensor::erf),
        ("gelu", Tensor::gelu),
        ("gelu_tanh", Tensor::gelu_tanh),
        ("silu", Tensor::silu),
        ("softplus", Tensor::softplus),
        ("relu", Tensor::relu),
        ("square", Tensor::square),
        ("neg", Tensor::neg),
        ("abs", Tensor::abs),
        ("sign", Tensor::sign),
        ("floor", Tensor::floor),
        ("ceil", Tensor::ceil),
        ("round", Tensor::round),
        ("log |x|", |x| (x.abs() + 1e-3).log()),
        ("log1p |x|", |x| x.abs().log1p()),
        ("sqrt |x|", |x| x.abs().sqrt()),
        ("rsqrt |x|", |x| (x.abs() + 0.01).rsqrt()),
        ("1 / (x + 2)", |x| (x + 2.0).recip()),
        ("(x + 2)³", |x| (x + 2.0).powi(3)),
    ];
    type Op2 = fn(&Tensor, &Tensor) -> Tensor;
    let binary: [(&str, Op2); 8] = [
        ("add", Tensor::add),
        ("sub", Tensor::sub),
        ("mul", Tensor::mul),
        ("maximum", Tensor::maximum),
        ("minimum", Tensor::minimum),
        ("atan2", Tensor::atan2),
        ("div", |a, b| a.div(&(b.abs() + 0.1))),
        ("rem", |a, b| a.rem(&(b.abs() + 0.1))),
    ];
    for n in SIZES {
        for dtype in FLOATS {
            for (name, op) in unary {
                let x = r.x(&[3, n], dtype).mul_scalar(4.0);
                r.push(format!("{name} {dtype} {n}"), op(&x), 64.0);
            }
            for (name, op) in binary {
                let (a, b) = (r.x(&[3, n], dtype), r.x(&[n], dtype));
                r.push(format!("{name} {dtype} {n}"), op(&a, &b), 16.0);
            }
        }
    }
}

fn rows(r: &mut Results) {
    for n in SIZES {
        for dtype in FLOATS {
            for (shape, dim) in [([5, n], 1isize), ([n, 5], 0)] {
                let x = r.x(&shape, dtype);
                let at = format!("{dtype} {shape:?} along {dim}");
                r.push(format!("sum {at}"), x.sum_dims(dim), n as f64);
                r.push(format!("mean {at}"), x.mean_dims(dim), 2.0);
                r.push(format!("var {at}"), x.var_dims(dim, 0), 8.0);
                r.push(format!("prod {at}"), (&x + 1.5).prod_dims(dim), 0.0);
                r.push(format!("max {at}"), x.max_dims(dim), 0.0);
                r.push(format!("min {at}"), x.min_dims(dim), 0.0);
                r.push(format!("argmax {at}"), x.argmax(dim), 0.0);
                r.push(format!("norm {at}"), x.norm_dims(2.0, dim), n as f64);
                r.push(format!("cumsum {at}"), x.cumsum(dim), n as f64);
                let g = r.x(&shape, dtype);
                let y = x.mul_scalar(3.0).softmax(dim);
                r.push(format!("softmax backward {at}"), y.softmax_backward(&g, dim), 32.0 + 4.0 * saved(dtype));
                r.push(format!("softmax {at}"), y, 32.0);
                let y = x.mul_scalar(3.0).log_softmax(dim);
                r.push(
                    format!("log softmax backward {at}"),
                    y.log_softmax_backward(&g, dim),
                    n as f64 * (2.0 + saved(dtype)) + 32.0,
                );
                r.push(format!("log softmax {at}"), y, 64.0);
            }
            let at = format!("{dtype} {n}");
            let (x, g, w, b) = (r.x(&[6, n], dtype), r.x(&[6, n], dtype), r.x(&[n], dtype), r.x(&[n], dtype));
            // A variance of 1/3, or about that: 1/√(variance + 0.1) is at most 3.2.
            let (y, mean, rstd) = x.layer_norm_with_stats(&[n], Some(&w), Some(&b), 0.1);
            let (dx, dp) = x.layer_norm_backward(&[n], Some(&w), &mean, &rstd, &g, true);
            let (dw, db) = dp.expect("parameters were asked for");
            for (name, y) in [("y", y), ("mean", mean), ("rstd", rstd), ("dx", dx), ("dw", dw), ("db", db)] {
                r.push(format!("layer norm {name} {at}"), y, 200.0);
            }
            let (y, rstd) = x.rms_norm_with_stats(&[n], Some(&w), 0.1);
            let (dx, dw) = x.rms_norm_backward(&[n], Some(&w), &rstd, &g, true);
            for (name, y) in [("y", y), ("rstd", rstd), ("dx", dx), ("dw", dw.expect("parameters"))] {
                r.push(format!("rms norm {name} {at}"), y, 200.0);
            }
            let residual = r.x(&[6, n], dtype);
            let (y, sum, rstd) = x.add_rms_norm_with_stats(&residual, &[n], Some(&w), 0.1);
            let (dx, dw) = sum.add_rms_norm_backward(&[n], Some(&w), &rstd, &g, &x, true);
            for (name, y) in [("y", y), ("sum", sum), ("dx", dx), ("dw", dw.expect("parameters"))] {
                r.push(format!("add rms norm {name} {at}"), y, 200.0 + 4.0 * saved(dtype));
            }
            for activation in Activation::ALL {
                r.push(format!("{activation:?} gate {at}"), x.gated(&residual, activation), 16.0);
                let (dgate, dup) = x.gated_backward(&residual, activation, &g);
                r.push(format!("{activation:?} gate's gradient {at}"), dgate, 16.0);
                r.push(format!("{activation:?} gated gradient {at}"), dup, 16.0);
            }
            let (features, angles) = (r.x(&[2, 3, 2 * n + 1], dtype), r.x(&[3, n], dtype.accumulator()));
            for pairs in [RotaryPairs::Halves, RotaryPairs::Interleaved] {
                r.push(format!("rope {pairs:?} {at}"), features.rope(&angles.cos(), &angles.sin(), pairs), 4.0);
            }
            let (x, w, b) = (r.x(&[2, 4, n], dtype), r.x(&[4], dtype), r.x(&[4], dtype));
            r.push(format!("group norm {at}"), x.group_norm(2, Some(&w), Some(&b), 0.1), 200.0);
            r.push(format!("batch norm {at}"), x.batch_norm(Some(&w), Some(&b), 0.1).0, 200.0);
            let logits = r.x(&[5, n], dtype).mul_scalar(3.0);
            let targets = Tensor::from_vec((0..5).map(|i| (i * 3 % n) as i64).collect(), [5]);
            let options = CrossEntropy { label_smoothing: 0.1, ..Default::default() };
            let (loss, lse, total) = logits.cross_entropy_with_stats(&targets, &options);
            let dx = logits.cross_entropy_backward(&targets, &options, &lse, &total, &Tensor::ones(()));
            for (name, y) in [("loss", loss), ("logsumexp", lse), ("gradient", dx)] {
                r.push(format!("cross-entropy {name} {at}"), y, 64.0);
            }
        }
    }
}

fn attention(r: &mut Results) {
    for (i, t) in SIZES.into_iter().enumerate() {
        for (j, dtype) in FLOATS.into_iter().enumerate() {
            let d = SIZES[(i + j) % SIZES.len()];
            let [q, k, v, g] = [(); 4].map(|()| r.x(&[1, 2, t, d], dtype));
            let options = AttentionOptions { causal: j % 2 == 0, ..Default::default() };
            let (y, lse) = q.attention_forward(&k, &v, &options);
            let back = q.attention_backward(&k, &v, &options, (&y, &lse), &g, false).expect("a fused kernel");
            // Scores are sums of d products, and gradients of t as well.
            let errors = (64 + 4 * d + 4 * t) as f64;
            let backward = errors + (8 + d) as f64 * saved(dtype);
            let at = format!("{dtype} T{t} D{d}");
            r.push(format!("attention {at}"), y, errors);
            r.push(format!("attention logsumexp {at}"), lse, errors);
            for (name, dx) in [("dq", back.query), ("dk", back.key), ("dv", back.value)] {
                r.push(format!("attention {name} {at}"), dx, backward);
            }
        }
    }
}

fn recurrences(r: &mut Results) {
    let options = SequenceOptions { lengths: Some(vec![4, 2, 3]), ..Default::default() };
    for (i, h) in SIZES.into_iter().enumerate() {
        for (j, dtype) in FLOATS.into_iter().enumerate() {
            let [t, b, n] = [4, 3, SIZES[(i + j) % SIZES.len()]];
            for (kind, gates) in [("lstm", 4), ("gru", 3), ("rnn", 1)] {
                // Weights whose products neither grow nor vanish.
                let scale = (h as f64).sqrt().recip();
                let x = r.x(&[t, b, n], dtype);
                let w_ih = r.x(&[gates * h, n], dtype).mul_scalar((n as f64).sqrt().recip());
                let w_hh = r.x(&[gates * h, h], dtype).mul_scalar(scale);
                let (b_ih, b_hh) = (r.x(&[gates * h], dtype), r.x(&[gates * h], dtype));
                let (h0, c0, g) = (r.x(&[b, h], dtype), r.x(&[b, h], dtype), r.x(&[t, b, h], dtype));
                let weights = RecurrentWeights { w_ih: &w_ih, w_hh: &w_hh, b_ih: Some(&b_ih), b_hh: Some(&b_hh) };
                let grads = SequenceGradients { hs: Some(&g), ..Default::default() };
                let results = match kind {
                    "lstm" => {
                        let y = lstm(&x, &weights, &h0, &c0, &options);
                        let args = SequenceArgs { x: &x, weights: &weights, h0: &h0, options: &options };
                        let d = lstm_backward(&args, &c0, &y, &grads, true).expect("a fused kernel");
                        let dx = d.x.expect("it was asked for");
                        let mut all = vec![("hs", y.hs), ("c_n", y.c_n), ("dh0", d.h0), ("dc0", d.c0), ("dx", dx)];
                        all.extend([("dw", d.w_hh), ("dw_ih", d.w_ih), ("db", d.bias)]);
                        all
                    }
                    "gru" => {
                        let y = gru(&x, &weights, &h0, &options);
                        let args = SequenceArgs { x: &x, weights: &weights, h0: &h0, options: &options };
                        let d = gru_backward(&args, &y, &grads, true).expect("a fused kernel");
                        let dx = d.x.expect("it was asked for");
                        let mut all = vec![("hs", y.hs), ("h_n", y.h_n), ("dh0", d.h0), ("dx", dx), ("dw", d.w_hh)];
                        all.extend([("dw_ih", d.w_ih), ("db_ih", d.b_ih), ("db_hh", d.b_hh)]);
                        all
                    }
                    _ => {
                        let tanh = RnnNonlinearity::Tanh;
                        let y = rnn(&x, &weights, &h0, tanh, &options);
                        let args = SequenceArgs { x: &x, weights: &weights, h0: &h0, options: &options };
                        let d = rnn_backward(&args, tanh, &y.hs, &grads, true).expect("a fused kernel");
                        let dx = d.x.expect("it was asked for");
                        let mut all = vec![("hs", y.hs), ("h_n", y.h_n), ("dh0", d.h0), ("dx", dx), ("dw", d.w_hh)];
                        all.extend([("dw_ih", d.w_ih), ("db", d.bias)]);
                        all
                    }
                };
                // Four steps, each a sum of n + h products, whose errors the next ones carry on.
                let errors = (8 * (n + h) + 256) as f64;
                for (name, y) in results {
                    r.push(format!("{kind} {name} {dtype} H{h} I{n}"), y, errors);
                }
            }
        }
    }
}

fn optimizers(r: &mut Results) {
    let rules = [
        OptimizerStep::Sgd(Sgd {
            lr: 0.1,
            momentum: 0.9,
            dampening: 0.1,
            weight_decay: 0.01,
            nesterov: true,
            first: false,
        }),
        OptimizerStep::Adam(Adam {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-3,
            weight_decay: 0.01,
            decoupled: true,
            amsgrad: true,
            step: 3,
        }),
        OptimizerStep::RmsProp(RmsProp {
            lr: 0.1,
            alpha: 0.9,
            eps: 1e-2,
            weight_decay: 0.01,
            momentum: 0.9,
            centered: false,
        }),
        OptimizerStep::Adagrad(Adagrad { lr: 0.1, lr_decay: 0.1, eps: 1e-3, weight_decay: 0.01, step: 3 }),
        OptimizerStep::Adadelta(Adadelta { lr: 0.1, rho: 0.9, eps: 1e-3, weight_decay: 0.01 }),
        OptimizerStep::Lion(Lion { lr: 0.1, beta1: 0.9, beta2: 0.99, weight_decay: 0.01 }),
        OptimizerStep::Lerp { weight: 0.3 },
        OptimizerStep::ScaleAdd { keep: 0.9, scale: -0.2 },
    ];
    for n in SIZES {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            for rule in &rules {
                let (mut p, g) = (r.x(&[n], dtype), r.x(&[n], dtype));
                let wide = dtype.accumulator();
                let mut state: Vec<Tensor> = (0..rule.states()).map(|_| r.x(&[n], wide).square() + 0.01).collect();
                rule.apply(&mut p, &g, &mut state);
                for (i, y) in [p].into_iter().chain(state).enumerate() {
                    r.push(format!("{} {i} {dtype} {n}", rule.name()), y, 64.0);
                }
            }
        }
    }
}

fn others(r: &mut Results) {
    for (i, n) in SIZES.into_iter().enumerate() {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let c = 1 + i % 3;
            let (x, w, b) = (r.x(&[2, c, 5, n + 2], dtype), r.x(&[4, c, 3, 3], dtype), r.x(&[4], dtype));
            let y = x.conv2d(&w, Some(&b), &Conv2dOptions::default());
            r.push(format!("conv2d {dtype} {c} channels, width {n}"), y, 9.0 * c as f64 + 1.0);
        }
        let x = with_seed(7, || Tensor::rand_on([n], DType::F32, &Device::CPU));
        r.push(format!("uniform numbers {n}"), x, 1.0);
        let x = with_seed(7, || Tensor::randn_on([n], DType::F32, &Device::CPU));
        r.push(format!("normal numbers {n}"), x, 64.0);
    }
}

/// This test in a process of its own, at that level.
fn child(level: Level, out: &Path) {
    let test = std::env::current_exe().expect("the path of this program");
    let child = Command::new(test)
        .args(["every_level_computes_what_the_portable_one_does", "--exact"])
        .env("FERROGRAD_SIMD", level.name())
        .env(OUT, out)
        .output()
        .expect("a child");
    assert!(child.status.success(), "{level:?}: {}", String::from_utf8_lossy(&child.stdout));
}

#[test]
fn every_level_computes_what_the_portable_one_does() {
    let here = compute();
    if let Some(path) = std::env::var_os(OUT) {
        let tensors: Vec<(&str, &Tensor)> = here.iter().map(|(name, y, _)| (&name[..], y)).collect();
        return save_safetensors(Path::new(&path), tensors, &BTreeMap::new()).expect("a file");
    }
    let folder = std::env::temp_dir().join(format!("ferrograd-levels-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let at = |level: Level| {
        let path = folder.join(level.name());
        child(level, &path);
        load_safetensors(&path).expect("what the child wrote")
    };
    let portable = at(Level::Portable);
    for level in Level::ALL.into_iter().filter(|&l| l != Level::Portable && l.usable() == l) {
        let other = at(level);
        for (name, y, errors) in &here {
            let [want, got] = [&portable, &other].map(|file| file.tensors[&name[..]].to_f64_vec());
            let (unit, own) = (y.dtype().accumulator().epsilon(), y.dtype().epsilon());
            // Integers are exact. Both sides round, so everything counts twice.
            let (unit, own) = if y.dtype().is_float() { (2.0 * unit, 2.0 * own) } else { (0.0, 0.0) };
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let bound = errors * unit + (own + 64.0 * unit) * want.abs();
                let same = got == want || (got - want).abs() <= bound || got.is_nan() && want.is_nan();
                assert!(same, "{name} at {level:?}, element {i}: {got}, not {want} (± {bound:e})");
            }
        }
    }
    std::fs::remove_dir_all(&folder).expect("the folder again");
}
