//! LSTM, GRU and RNN: fused derivatives against finite differences, the composition and PyTorch; second derivatives.

#[path = "../../../golden/reader.rs"]
mod golden;
#[path = "../../tensor/tests/plain/mod.rs"]
mod plain;
#[path = "../../tensor/tests/sample/mod.rs"]
mod sample;

use ferrograd_autograd::ops::{LstmWeights, RnnNonlinearity, SequenceOptions, gru, lstm, rnn};
use ferrograd_autograd::{GradOptions, Var, autocast, grad, grad_with, gradcheck, gradgradcheck};
use ferrograd_tensor::{DType, Device, Tensor};
use golden::Golden;
use plain::device as plain;
use proptest::prelude::*;
use sample::{distance, values};

/// The outputs of op `kind` (0 LSTM, 1 GRU, 2 and 3 RNN) of `x, w_ih, w_hh, h0, c0, b_ih, b_hh`.
fn run(kind: usize, x: &[Var], biases: [bool; 2], options: &SequenceOptions) -> Vec<Var> {
    let [b_ih, b_hh] = [(0, 5), (1, 6)].map(|(i, at)| biases[i].then_some(&x[at]));
    let weights = LstmWeights { w_ih: &x[1], w_hh: &x[2], b_ih, b_hh };
    let activation = if kind == 2 { RnnNonlinearity::Tanh } else { RnnNonlinearity::Relu };
    let (hs, h_n) = match kind {
        0 => {
            let (hs, h_n, c_n) = lstm(&x[0], &weights, &x[3], &x[4], options);
            return vec![hs, h_n, c_n];
        }
        1 => gru(&x[0], &weights, &x[3], options),
        _ => rnn(&x[0], &weights, &x[3], activation, options),
    };
    vec![hs, h_n]
}

fn inputs(kind: usize, [t, b, i, h]: [usize; 4], dtype: DType, seed: u64) -> Vec<Tensor> {
    let g = [4, 3, 1, 1][kind] * h;
    let shapes: [&[usize]; 7] = [&[t, b, i], &[g, i], &[g, h], &[b, h], &[b, h], &[g], &[g]];
    shapes.iter().enumerate().map(|(n, &shape)| values(shape, dtype, seed / 5u64.pow(n as u32))).collect()
}

fn leaves(tensors: &[Tensor]) -> Vec<Var> {
    tensors.iter().map(|x| Var::leaf(x.clone())).collect()
}

/// Without a state there are no gates, and the input does not matter; its gradient is zero, not what memory held.
#[test]
fn a_state_of_nothing() {
    let x = Var::leaf(Tensor::randn([64, 32, 8]));
    let [w_ih, w_hh, state] = [[0, 8], [0, 0], [32, 0]].map(|shape| Var::leaf(Tensor::randn(shape)));
    let weights = LstmWeights { w_ih: &w_ih, w_hh: &w_hh, b_ih: None, b_hh: None };
    drop(Tensor::randn([64, 32, 8]));
    let (hs, ..) = lstm(&x, &weights, &state, &state, &SequenceOptions::default());
    let dx = hs.backward_from(&Tensor::ones([64, 32, 0]));
    assert!(dx.wrt(&x).to_f64_vec().iter().all(|&d| d == 0.0));
}

/// Biases are added in the accumulator's type: 0.003 would be lost beside 1 in bf16.
#[test]
fn biases_meet_in_full_precision() {
    let w = Var::from(Tensor::full([4, 1], 0.0).to_dtype(DType::BF16));
    let [b_ih, b_hh] = [1.0, 0.003].map(|b| Var::from(Tensor::full([4], b).to_dtype(DType::BF16)));
    let weights = LstmWeights { w_ih: &w, w_hh: &w, b_ih: Some(&b_ih), b_hh: Some(&b_hh) };
    let zero = Var::from(Tensor::full([1, 1], 0.0).to_dtype(DType::BF16));
    let x = zero.reshape([1, 1, 1]);
    let (_, _, c) = lstm(&x, &weights, &zero, &zero, &SequenceOptions::default());
    let b = 1.0 + b_hh.tensor().to_f64_vec()[0];
    let want = b.tanh() / (1.0 + (-b).exp());
    assert!((c.tensor().to_f64_vec()[0] - want).abs() <= want * DType::BF16.epsilon() / 2.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    /// On a backend without fused kernels forward and backward go through `composed`.
    #[test]
    fn fused_derivatives_are_composed(
        (kind, t, b, i, h) in (0usize..4, 0usize..5, 0usize..4, 0usize..4, 0usize..4),
        (bias_ih, bias_hh, reverse, ragged, masked) in any::<(bool, bool, bool, bool, bool)>(),
        (used, seed) in (1usize..8, 0u64..1 << 40),
    ) {
        let x = inputs(kind, [t, b, i, h], DType::F64, seed);
        let mask = values([b, h], DType::F64, seed / 3).gt_scalar(0.0).to_dtype(DType::F64).mul_scalar(2.0);
        let run = |device: Device| {
            let options = SequenceOptions {
                reverse,
                lengths: ragged.then(|| (0..b).map(|r| (seed >> (8 * r)) as usize % (t + 1)).collect()),
                recurrent_mask: masked.then(|| mask.to_device(&device)),
            };
            let x: Vec<Var> = x.iter().map(|x| Var::leaf(x.to_device(&device))).collect();
            let outputs = run(kind, &x, [bias_ih, bias_hh], &options);
            // Not every output takes part in the loss.
            let parts = outputs.iter().enumerate().filter(|(n, _)| *n == 0 || used >> n & 1 == 1);
            let loss = parts.map(|(n, y)| {
                let weights = values(y.shape(), DType::F64, seed / (7 + n as u64)).to_device(&device);
                (y * &weights).sum()
            });
            let grads = loss.reduce(|a, b| a + b).unwrap().backward();
            let found = x.iter().map(|x| grads.get(x).cloned().unwrap_or_else(|| x.tensor().zeros_like()));
            let all = outputs.iter().map(|y| y.tensor().clone()).chain(found);
            all.map(|t| t.to_device(&Device::default())).collect::<Vec<_>>()
        };
        for (n, (fused, composed)) in run(Device::default()).iter().zip(run(plain())).enumerate() {
            let size = composed.to_f64_vec().iter().fold(1.0f64, |m, x| m.max(x.abs()));
            prop_assert!(distance(fused, &composed) < 1e-12 * size, "{kind}, {n}: {}", distance(fused, &composed));
        }
    }
}

#[test]
fn first_and_second_derivatives_are_the_differences() {
    for kind in 0..4 {
        let x = inputs(kind, [3, 2, 1, 2], DType::F64, 8_765_432_109);
        let options = SequenceOptions {
            reverse: kind % 2 == 1,
            lengths: Some(vec![3, 2]),
            recurrent_mask: (kind == 1).then(|| Tensor::new([[2.0, 0.0], [2.0, 2.0f64]])),
        };
        let f = |x: &[Var]| {
            let outputs = run(kind, x, [true, true], &options);
            let flat: Vec<Var> = outputs.iter().map(|y| y.reshape(y.numel())).collect();
            Var::cat(&flat.iter().collect::<Vec<_>>(), 0)
        };
        gradcheck(f, &x).unwrap();
        if kind < 3 {
            gradgradcheck(f, &x).unwrap();
        }
    }
}

#[test]
fn a_gradient_penalty_goes_through_the_lstm() {
    // L = |∂y/∂x|², and its derivative by w_hh against central differences.
    let x = inputs(0, [3, 1, 2, 2], DType::F64, 99_887_766);
    let penalty = |w_hh: &Tensor, create_graph: bool| {
        let mut vars = leaves(&x);
        vars[2] = Var::leaf(w_hh.clone());
        let y = run(0, &vars, [true, true], &SequenceOptions::default())[0].square().sum();
        let options = GradOptions { create_graph, retain_graph: true, ..GradOptions::default() };
        (grad_with(&[&y], &[&vars[0]], options).remove(0).square().sum(), vars.swap_remove(2))
    };
    let (value, leaf) = penalty(&x[2], true);
    assert!((value.item::<f64>() - penalty(&x[2], false).0.item::<f64>()).abs() < 1e-14);
    let analytic = grad(&value, &[&leaf]).remove(0).tensor().to_vec::<f64>();
    for i in 0..analytic.len() {
        let at = |h: f64| {
            let mut bumped = x[2].to_vec::<f64>();
            bumped[i] += h;
            penalty(&Tensor::from_vec(bumped, x[2].shape()), false).0.item::<f64>()
        };
        let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((analytic[i] - numeric).abs() < 1e-8, "{i}: {} ≠ {numeric}", analytic[i]);
    }
    assert!(analytic.iter().any(|g| g.abs() > 1e-4));
}

#[test]
fn pytorch() {
    // One layer, one or two directions: what a layer of these ops computes.
    let file = Golden::open("layers");
    let mut checked = 0;
    for case in file.cases() {
        let Some(kind) = ["lstm_", "gru_", "rnn_"].iter().position(|name| case.starts_with(name)) else { continue };
        let config = file.config(&case);
        if config["num_layers"] != 1 {
            continue;
        }
        let kind = if config["nonlinearity"] == "relu" { 3 } else { kind };
        let directions = if config["bidirectional"] == true { 2 } else { 1 };
        let batch_first = config["batch_first"] == true;
        let time_first = |x: Tensor| if batch_first { x.transpose(0, 1) } else { x };
        let x = Var::leaf(time_first(file.expect(&case, "input.input")));
        let lengths = file.get(&case, "input.lengths");
        let lengths: Option<Vec<usize>> =
            lengths.map(|lengths| lengths.to_vec::<i64>().iter().map(|&n| n as usize).collect());
        let zeros = Tensor::full_on([directions, x.dim(1), 6], 0.0, DType::F64, &Device::default());
        let state = |name: &str| Var::leaf(file.get(&case, name).unwrap_or_else(|| zeros.clone()));
        let (h_0, c_0) = (state("input.h_0"), state("input.c_0"));
        let mut params = Vec::new();
        let (mut hs, mut h_n, mut c_n) = (Vec::new(), Vec::new(), Vec::new());
        for direction in 0..directions {
            let suffix = ["", "_reverse"][direction];
            let names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"].map(|n| format!("{n}{suffix}"));
            let own = names.map(|n| {
                let param = file.get(&case, &format!("param.{n}")).map(Var::leaf);
                params.extend(param.clone().map(|p| (n, p)));
                param
            });
            let [w_ih, w_hh, b_ih, b_hh] = own;
            let bias = |b: Option<Var>| b.unwrap_or_else(|| Var::constant(Tensor::zeros(0)));
            let biases = [b_ih.is_some(), b_hh.is_some()];
            let options = SequenceOptions { reverse: direction == 1, lengths: lengths.clone(), recurrent_mask: None };
            let d = direction as isize;
            let all =
                [x.clone(), w_ih.unwrap(), w_hh.unwrap(), h_0.select(0, d), c_0.select(0, d), bias(b_ih), bias(b_hh)];
            let mut outputs = run(kind, &all, biases, &options).into_iter();
            hs.extend(outputs.next());
            h_n.extend(outputs.next());
            c_n.extend(outputs.next());
        }
        let hs = Var::cat(&hs.iter().collect::<Vec<_>>(), -1);
        let mut outputs = vec![("out", if batch_first { hs.transpose(0, 1) } else { hs })];
        outputs.push(("h_n", Var::stack(&h_n.iter().collect::<Vec<_>>(), 0)));
        if !c_n.is_empty() {
            outputs.push(("c_n", Var::stack(&c_n.iter().collect::<Vec<_>>(), 0)));
        }
        let mut losses = Vec::new();
        for (name, y) in &outputs {
            let expected = file.expect(&case, &format!("output.{name}"));
            assert!(distance(y.tensor(), &expected) < 1e-12, "{case} {name}: {}", distance(y.tensor(), &expected));
            losses.push((y * &file.expect(&case, &format!("grad_output.{name}"))).sum());
        }
        let grads = losses.into_iter().reduce(|a, b| a + b).unwrap().backward();
        let dx = grads.wrt(&x).clone();
        let dx = if batch_first { dx.transpose(0, 1) } else { dx };
        assert!(distance(&dx, &file.expect(&case, "grad_input.input")) < 1e-12, "{case} input");
        for (name, state) in [("h_0", &h_0), ("c_0", &c_0)] {
            if let Some(expected) = file.get(&case, &format!("grad_input.{name}")) {
                assert!(distance(grads.wrt(state), &expected) < 1e-12, "{case} {name}");
            }
        }
        for (name, param) in &params {
            let expected = file.expect(&case, &format!("grad.{name}"));
            assert!(distance(grads.wrt(param), &expected) < 1e-12, "{case} {name}");
        }
        checked += 1;
    }
    assert_eq!(checked, 22);
}

#[test]
fn half_types_and_autocast() {
    for kind in 0..3 {
        let x = inputs(kind, [4, 3, 3, 4], DType::F32, 1_234_567);
        let exact = leaves(&x);
        let loss = |vars: &[Var]| run(kind, vars, [true, true], &SequenceOptions::default()).remove(0);
        let y = loss(&exact);
        let expected = y.backward_from(&y.tensor().ones_like());
        for dtype in [DType::BF16, DType::F16] {
            let cast = leaves(&x);
            let half = autocast(dtype, || loss(&cast));
            assert_eq!(half.dtype(), dtype);
            // Inputs, weights and the input's product are rounded (each ε/2, in sums of four); four steps add up.
            assert!(distance(&half.tensor().to_dtype(DType::F32), y.tensor()) < 16.0 * dtype.epsilon());
            let grads = half.backward_from(&half.tensor().ones_like());
            for (n, (a, b)) in exact.iter().zip(&cast).enumerate() {
                let Some(expected) = expected.get(a) else { continue };
                let size = expected.abs().max().item::<f64>().max(1.0);
                assert!(distance(grads.wrt(b), expected) < 32.0 * size * dtype.epsilon(), "{kind} {dtype} {n}");
            }
        }
    }
}
