//! Every fused operation on the card against the CPU: all float types, any strides, nothing at all and single elements.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{card, cuda, there};
use ferrograd_tensor::backend::{Backend, CrossEntropyRows};
use ferrograd_tensor::cpu::CpuBackend;
use ferrograd_tensor::ops::optimizer::{Adadelta, Adagrad, Adam, Lion, OptimizerStep, RmsProp, Sgd};
use ferrograd_tensor::{Activation, DType, RotaryPairs, Tensor};
use layouts::Random;

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// Equal but for `roundings` of the type that is computed in, relative to the larger of `scale` and the value, and the one to a half
/// type, where a neighbour may be the nearest; NaN is NaN.
#[track_caller]
fn close(what: &str, got: &Tensor, want: &Tensor, roundings: f64, scale: f64) {
    assert_eq!((got.shape(), got.dtype()), (want.shape(), want.dtype()), "{what}");
    assert_eq!(got.device(), cuda(), "{what}");
    let dtype = want.dtype();
    let epsilon = roundings * dtype.accumulator().epsilon();
    for (i, (g, w)) in got.to_f64_vec().into_iter().zip(want.to_f64_vec()).enumerate() {
        let narrow = if dtype.is_half() { dtype.epsilon() * w.abs().max(1e-4) } else { 0.0 };
        let bound = epsilon * w.abs().max(scale) + narrow;
        let ok = g == w || (g - w).abs() <= bound || g.is_nan() && w.is_nan();
        assert!(ok, "{what}: element {i} is {g}, not {w} ± {bound:e}");
    }
}

/// Eighths in ±1½, of any strides or in one run.
fn operand(random: &mut Random, shape: &[usize], dtype: DType) -> Tensor {
    if random.below(2) == 0 { random.strided(shape, dtype) } else { random.values(shape, dtype) }
}

/// Rows of every kind, and the dimension along which they lie: nothing, single elements, rows for a warp, a block, more than a
/// block's registers; lines side by side; any number of dimensions.
fn rows(random: &mut Random) -> Vec<(Vec<usize>, usize)> {
    let mut rows = vec![
        (vec![0], 0),
        (vec![3, 0], 1),
        (vec![0, 3], 1),
        (vec![1], 0),
        (vec![5, 1], 1),
        (vec![9, 7], 1),
        (vec![9, 16], 1),
        (vec![3, 700], 1),
        (vec![2, 1536], 1),
        (vec![35, 40], 0),
        (vec![2, 300, 24], 1),
    ];
    for _ in 0..8 {
        let shape: Vec<usize> = (0..1 + random.below(4)).map(|_| 1 + random.below(9)).collect();
        let dim = random.below(shape.len());
        rows.push((shape, dim));
    }
    rows
}

/// Longer than a block's registers hold.
fn long_row(dtype: DType) -> usize {
    64 / dtype.size() * 1024 + 16
}

/// Rows that infinities and NaN are in.
fn special_rows(dtype: DType) -> Tensor {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let rows = [[-inf; 4], [0.0, inf, 1.0, -inf], [0.0, nan, 1.0, 2.0], [-inf, 1e4, -1e4, 0.5], [inf; 4], [0.0; 4]];
    Tensor::from_vec(rows.concat(), [6, 4]).to_dtype(dtype)
}

#[test]
fn softmax() {
    let mut random = Random(1);
    // Each probability and logarithm is rounded a few times; sums of up to n terms are relative to the largest, 1.
    let check = |x: &Tensor, g: &Tensor, dim: usize| {
        let what = format!("softmax of {}{} along {dim}", x.dtype(), x.shape());
        let (x2, g2) = (there(x), there(g));
        let roundings = 16.0 + (x.dims()[dim] as f64).sqrt();
        let y = CpuBackend.softmax(x, dim).expect("a kernel");
        close(&what, &card().softmax(&x2, dim).expect("a kernel"), &y, roundings, 1e-3);
        let want = CpuBackend.softmax_backward(&y, g, dim).expect("a kernel");
        close(&what, &card().softmax_backward(&there(&y), &g2, dim).expect("a kernel"), &want, roundings, 1.0);
        let y = CpuBackend.log_softmax(x, dim).expect("a kernel");
        close(&what, &card().log_softmax(&x2, dim).expect("a kernel"), &y, roundings, 1.0);
        let want = CpuBackend.log_softmax_backward(&y, g, dim).expect("a kernel");
        close(&what, &card().log_softmax_backward(&there(&y), &g2, dim).expect("a kernel"), &want, roundings, 1.0);
    };
    for dtype in FLOATS {
        for (shape, dim) in rows(&mut random) {
            let (x, g) = (operand(&mut random, &shape, dtype), operand(&mut random, &shape, dtype));
            check(&x, &g, dim);
        }
        let long = [2, long_row(dtype)];
        check(&random.values(&long, dtype), &random.values(&long, dtype), 1);
        let odd = [1, long_row(dtype) + 1];
        check(&random.values(&odd, dtype), &random.values(&odd, dtype), 1);
        for dim in [0, 1] {
            check(&special_rows(dtype), &random.values(&[6, 4], dtype), dim);
        }
        // Long, so that it is read again; a sum that starts before the first finite number.
        let mut numbers = vec![f64::NEG_INFINITY; long_row(dtype)];
        numbers[long_row(dtype) / 2] = 3.0;
        let x = Tensor::from_vec(numbers, [1, long_row(dtype)]).to_dtype(dtype);
        check(&x, &random.values(&[1, long_row(dtype)], dtype), 1);
    }
}

/// `[R, N]` that reach every kernel of the norms.
fn matrices(random: &mut Random, dtype: DType) -> Vec<[usize; 2]> {
    let mut shapes = vec![[0, 3], [3, 0], [1, 1], [5, 1], [70, 16], [37, 100], [3, 1024], [20, 1100], [2, 5000]];
    shapes.extend([[2, long_row(dtype)], [17, long_row(dtype) / 2 + 3]]);
    shapes.extend((0..4).map(|_| [1 + random.below(50), 1 + random.below(50)]));
    shapes
}

#[test]
fn norms() {
    let mut random = Random(2);
    for dtype in FLOATS {
        for [rows, n] in matrices(&mut random, dtype) {
            let what = format!("{dtype}[{rows}, {n}]");
            let (x, g) = (operand(&mut random, &[rows, n], dtype), operand(&mut random, &[rows, n], dtype));
            let (w, b) = (operand(&mut random, &[n], dtype), operand(&mut random, &[n], dtype));
            let parameters = [None, Some(&w)].into_iter().zip([Some(&b), None]);
            for (w, b) in parameters.chain([(Some(&w), Some(&b))]) {
                check_norms(&what, &x, w, b, &g);
            }
        }
        let x = special_rows(dtype);
        check_norms(&format!("special {dtype}"), &x, None, None, &random.values(&[6, 4], dtype));
    }
}

fn check_norms(what: &str, x: &Tensor, w: Option<&Tensor>, b: Option<&Tensor>, g: &Tensor) {
    const EPS: f64 = 1e-2;
    // Sums are rounded less than √n times each as a rule; rstd is at most 1/√EPS = 10, and 3 of them meet in a gradient.
    let (rows, n) = (x.dims()[0] as f64, x.dims()[1] as f64);
    let [one, all] = [32.0 + n.sqrt(), 64.0 + rows + n.sqrt()];
    let (x2, g2, w2, b2) = (there(x), there(g), w.map(there), b.map(there));
    let (y, mean, rstd) = CpuBackend.layer_norm(x, w, b, EPS).expect("a kernel");
    let got = card().layer_norm(&x2, w2.as_ref(), b2.as_ref(), EPS).expect("a kernel");
    close(&format!("layer_norm of {what}"), &got.0, &y, 10.0 * one, 1.0);
    close(&format!("mean of {what}"), &got.1, &mean, one, 1.0);
    close(&format!("rstd of {what}"), &got.2, &rstd, 10.0 * one, 1.0);
    for parameters in [false, true] {
        let (dx, sums) = CpuBackend.layer_norm_backward(x, w, &mean, &rstd, g, None, parameters).expect("a kernel");
        let got = card().layer_norm_backward(&x2, w2.as_ref(), &there(&mean), &there(&rstd), &g2, None, parameters);
        let (got, got_sums) = got.expect("a kernel");
        close(&format!("layer_norm_backward of {what}"), &got, &dx, one, 100.0);
        assert_eq!(got_sums.is_some(), parameters);
        if let (Some((dw, db)), Some((got_dw, got_db))) = (sums, got_sums) {
            close(&format!("dweight of {what}"), &got_dw, &dw, all, 10.0);
            close(&format!("dbias of {what}"), &got_db, &db, all, 1.0);
        }
    }
    let (y, rstd) = CpuBackend.rms_norm(x, w, EPS).expect("a kernel");
    let got = card().rms_norm(&x2, w2.as_ref(), EPS).expect("a kernel");
    close(&format!("rms_norm of {what}"), &got.0, &y, 10.0 * one, 1.0);
    close(&format!("rms_norm's rstd of {what}"), &got.1, &rstd, 10.0 * one, 1.0);
    for parameters in [false, true] {
        let (dx, dw) = CpuBackend.rms_norm_backward(x, w, &rstd, g, None, parameters).expect("a kernel");
        let got = card().rms_norm_backward(&x2, w2.as_ref(), &there(&rstd), &g2, None, parameters).expect("a kernel");
        close(&format!("rms_norm_backward of {what}"), &got.0, &dx, one, 100.0);
        assert_eq!(got.1.is_some(), parameters);
        if let (Some(dw), Some(got)) = (dw, got.1) {
            close(&format!("rms_norm's dweight of {what}"), &got, &dw, all, 10.0);
        }
    }
}

#[test]
fn norms_of_sums() {
    let mut random = Random(11);
    for dtype in FLOATS {
        let long = long_row(dtype);
        for shape in [[0, 3], [3, 0], [1, 1], [70, 16], [37, 100], [20, 1100], [2, 5000], [2, long], [1, long + 1]] {
            let operands = [0; 4].map(|_| operand(&mut random, &shape, dtype));
            let [w, b] = [0; 2].map(|_| operand(&mut random, &shape[1..], dtype));
            check_norms_of_sums(operands.each_ref(), Some(&w), Some(&b));
        }
        // Rows side by side, and without parameters.
        let operands = [0; 4].map(|_| random.values(&[40, 33], dtype).t());
        check_norms_of_sums(operands.each_ref(), None, None);
    }
}

/// Of `x + residual`, with the gradients of the norm and of the sum.
fn check_norms_of_sums([x, residual, g, others]: [&Tensor; 4], w: Option<&Tensor>, b: Option<&Tensor>) {
    const EPS: f64 = 1e-2;
    let what = format!("{}{}", x.dtype(), x.shape());
    // As in `check_norms`; sums are eighths, and exact.
    let (rows, n) = (x.dims()[0] as f64, x.dims()[1] as f64);
    let [one, all] = [32.0 + n.sqrt(), 64.0 + rows + n.sqrt()];
    let [x2, residual2, g2, others2] = [x, residual, g, others].map(there);
    let (w2, b2) = (w.map(there), b.map(there));
    let (w2, b2) = (w2.as_ref(), b2.as_ref());

    let (y, sum, mean, rstd) = CpuBackend.add_layer_norm(x, residual, w, b, EPS).expect("a kernel");
    let got = card().add_layer_norm(&x2, &residual2, w2, b2, EPS).expect("a kernel");
    close(&format!("layer norm of a sum, {what}"), &got.0, &y, 10.0 * one, 1.0);
    close(&format!("sum, {what}"), &got.1, &sum, 0.0, 1.0);
    close(&format!("mean of a sum, {what}"), &got.2, &mean, one, 1.0);
    close(&format!("rstd of a sum, {what}"), &got.3, &rstd, 10.0 * one, 1.0);
    let (mean2, rstd2) = (there(&mean), there(&rstd));
    let (dx, parameters) =
        CpuBackend.layer_norm_backward(&sum, w, &mean, &rstd, g, Some(others), true).expect("a kernel");
    let got = card().layer_norm_backward(&there(&sum), w2, &mean2, &rstd2, &g2, Some(&others2), true);
    let (got_dx, got_parameters) = got.expect("a kernel");
    close(&format!("gradient of a sum and its layer norm, {what}"), &got_dx, &dx, one, 100.0);
    let ((dw, db), (got_dw, got_db)) = (parameters.expect("sums"), got_parameters.expect("sums"));
    close(&format!("dweight of a sum, {what}"), &got_dw, &dw, all, 10.0);
    close(&format!("dbias of a sum, {what}"), &got_db, &db, all, 1.0);

    let (y, sum, rstd) = CpuBackend.add_rms_norm(x, residual, w, EPS).expect("a kernel");
    let got = card().add_rms_norm(&x2, &residual2, w2, EPS).expect("a kernel");
    close(&format!("RMS norm of a sum, {what}"), &got.0, &y, 10.0 * one, 1.0);
    close(&format!("RMS norm's sum, {what}"), &got.1, &sum, 0.0, 1.0);
    close(&format!("RMS norm's rstd of a sum, {what}"), &got.2, &rstd, 10.0 * one, 1.0);
    let rstd2 = there(&rstd);
    let (dx, _) = CpuBackend.rms_norm_backward(&sum, w, &rstd, g, Some(others), false).expect("a kernel");
    let got = card().rms_norm_backward(&there(&sum), w2, &rstd2, &g2, Some(&others2), false).expect("a kernel");
    close(&format!("gradient of a sum and its RMS norm, {what}"), &got.0, &dx, one, 100.0);
}

#[test]
fn cross_entropy() {
    let mut random = Random(3);
    for dtype in FLOATS {
        for [rows, v] in matrices(&mut random, dtype) {
            let x = operand(&mut random, &[rows, v], dtype);
            check_cross_entropy(&x, &mut random);
        }
        check_cross_entropy(&special_rows(dtype), &mut random);
        let nothing = [f64::NEG_INFINITY].repeat(long_row(dtype));
        check_cross_entropy(&Tensor::from_vec(nothing, [1, long_row(dtype)]).to_dtype(dtype), &mut random);
    }
}

fn check_cross_entropy(x: &Tensor, random: &mut Random) {
    let (rows, v) = (x.dims()[0], x.dims()[1]);
    // An eighth of the targets is ignored: all where there is no class.
    let mut target = || if v == 0 || random.below(8) == 0 { -100 } else { random.below(v) as i64 };
    let targets = Tensor::from_vec((0..rows).map(|_| target()).collect(), [rows]);
    let (weight, scale) = (operand(random, &[v], x.dtype()), operand(random, &[rows], x.dtype().accumulator()));
    let (x2, targets2, weight2, scale2) = (there(x), there(&targets), there(&weight), there(&scale));
    let accumulated = 32.0 + (v as f64).sqrt() + (rows as f64).sqrt();
    for (weights, label_smoothing) in
        [(None, 0.0), (None, 0.25), (Some((&weight, &weight2)), 0.0), (Some((&weight, &weight2)), 0.1)]
    {
        let what = format!("{}{} smoothed by {label_smoothing}", x.dtype(), x.shape());
        let options = |weight| CrossEntropyRows { weight, ignore_index: Some(-100), label_smoothing };
        let (here, on_card) = (options(weights.map(|w| w.0)), options(weights.map(|w| w.1)));
        let (loss, lse, total) = CpuBackend.cross_entropy(x, &targets, &here).expect("a kernel");
        let got = card().cross_entropy(&x2, &targets2, &on_card).expect("a kernel");
        close(&format!("loss of {what}"), &got.0, &loss, accumulated, 4.0);
        close(&format!("logsumexp of {what}"), &got.1, &lse, accumulated, 1.0);
        close(&format!("total of {what}"), &got.2, &total, accumulated, 8.0);
        let want = CpuBackend.cross_entropy_backward(x, &targets, &lse, &scale, &here).expect("a kernel");
        let got = card().cross_entropy_backward(&x2, &targets2, &there(&lse), &scale2, &on_card).expect("a kernel");
        // p is off by as many roundings as its exponent, which is at most ln V + 3.
        close(&format!("gradient of {what}"), &got, &want, accumulated, 1.0);
    }
}

#[test]
fn dropout() {
    let mut random = Random(4);
    for dtype in FLOATS {
        for shape in [vec![], vec![0], vec![1], vec![5], vec![1037], vec![64], vec![33, 65], vec![2, 3, 1, 4, 2]] {
            let x = operand(&mut random, &shape, dtype);
            for p in [0.1, 0.5, 1.0] {
                let (seed, offset) = (1 << 40 | 7, 3 << 33);
                let want = CpuBackend.dropout(&x, p, seed, offset).expect("a kernel");
                let got = card().dropout(&there(&x), p, seed, offset).expect("a kernel");
                close(&format!("dropout of {dtype}{shape:?}"), &got, &want, 0.0, 1.0);
            }
        }
        let x = Tensor::full([64], f64::NAN).to_dtype(dtype);
        let want = CpuBackend.dropout(&x, 0.5, 1, 2).expect("a kernel");
        close("dropout of NaN", &card().dropout(&there(&x), 0.5, 1, 2).expect("a kernel"), &want, 0.0, 1.0);
    }
}

/// The activations of gates that have kernels; the others are composed.
const GATES: [Activation; 5] =
    [Activation::Sigmoid, Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu];

#[test]
fn gates_without_a_kernel_are_composed() {
    let mut random = Random(11);
    let [gate, up, g] = [0; 3].map(|_| random.values(&[3, 5], DType::BF16));
    let [gate2, up2, g2] = [&gate, &up, &g].map(there);
    for activation in Activation::ALL.into_iter().filter(|activation| !GATES.contains(activation)) {
        let what = format!("{activation:?}");
        close(&what, &gate2.gated(&up2, activation), &gate.gated(&up, activation), 24.0, 1.0);
        let (got, want) = (gate2.gated_backward(&up2, activation, &g2), gate.gated_backward(&up, activation, &g));
        close(&format!("dgate, {what}"), &got.0, &want.0, 24.0, 1.0);
        close(&format!("dup, {what}"), &got.1, &want.1, 24.0, 1.0);
    }
}

#[test]
fn gated() {
    let mut random = Random(10);
    for dtype in FLOATS {
        for shape in
            [vec![], vec![0], vec![3, 0], vec![1], vec![5], vec![64], vec![33, 65], vec![7, 48], vec![2, 3, 4, 16]]
        {
            for way in 0..3 {
                let [gate, up] = match shape.split_last() {
                    // The halves of one product.
                    Some((&n, lead)) if way == 1 => {
                        let both = random.values(&[lead, &[2 * n]].concat(), dtype);
                        [0, n].map(|start| both.narrow(-1, start, n))
                    }
                    _ if way == 2 => [0; 2].map(|_| random.strided(&shape, dtype)),
                    _ => [0; 2].map(|_| random.values(&shape, dtype)),
                };
                let g = operand(&mut random, &shape, dtype);
                let [gate2, up2, g2] = [&gate, &up, &g].map(there);
                for activation in GATES {
                    let what = format!("{activation:?} of {dtype}{shape:?}, way {way}");
                    let want = CpuBackend.gated(&gate, &up, activation).expect("a kernel");
                    let got = card().gated(&gate2, &up2, activation).expect("a kernel");
                    // An exponential or error function, and a handful of products.
                    close(&what, &got, &want, 24.0, 1.0);
                    let want = CpuBackend.gated_backward(&gate, &up, activation, &g).expect("a kernel");
                    let got = card().gated_backward(&gate2, &up2, activation, &g2).expect("a kernel");
                    close(&format!("dgate, {what}"), &got.0, &want.0, 24.0, 1.0);
                    close(&format!("dup, {what}"), &got.1, &want.1, 24.0, 1.0);
                }
            }
        }
    }
}

#[test]
fn rope() {
    let mut random = Random(9);
    for dtype in FLOATS {
        // In vectors with tables for all heads, each head's own, or some of both; single pairs; features that stay; nothing.
        let cases: [(&[usize], &[usize], usize); 9] = [
            (&[2, 3, 5, 32], &[5, 16], 16),
            (&[2, 3, 5, 48], &[2, 3, 5, 16], 16),
            (&[2, 3, 5, 32], &[2, 1, 5, 16], 16),
            (&[70, 600, 16], &[600, 8], 8),
            (&[2, 3, 5, 7], &[5, 3], 3),
            (&[3, 20], &[3, 5], 5),
            (&[2, 2], &[2, 1], 1),
            (&[0, 4, 8], &[4, 4], 4),
            (&[2, 0, 8], &[0, 2], 2),
        ];
        for (shape, angles, p) in cases {
            assert_eq!(angles.last(), Some(&p));
            let wide = dtype.accumulator();
            for way in 0..4 {
                // In one run; heads between, as a projection leaves them; any strides.
                let x = match way {
                    0 => random.values(shape, dtype),
                    1 if shape.len() > 2 => {
                        let mut between = shape.to_vec();
                        between.swap(shape.len() - 2, shape.len() - 3);
                        random.values(&between, dtype).transpose(-2, -3)
                    }
                    _ => random.strided(shape, dtype),
                };
                let table = |random: &mut Random| match way {
                    3 => random.strided(angles, wide),
                    _ => random.values(angles, wide),
                };
                let expanded = [shape[..shape.len() - 1].to_vec(), vec![p]].concat();
                let [cos, sin] = [table(&mut random), table(&mut random)].map(|t| t.expand(&expanded));
                let (x2, cos2, sin2) = (there(&x), there(&cos), there(&sin));
                for pairs in [RotaryPairs::Halves, RotaryPairs::Interleaved] {
                    for inverse in [false, true] {
                        let what = format!("rope of {dtype}{shape:?} by {angles:?}, {pairs:?}, inverse: {inverse}");
                        let want = CpuBackend.rope(&x, &cos, &sin, pairs, inverse).expect("a kernel");
                        let got = card().rope(&x2, &cos2, &sin2, pairs, inverse).expect("a kernel");
                        // Two products of at most 2¼, and their sum.
                        close(&what, &got, &want, 4.0, 4.5);
                    }
                }
            }
        }
    }
}

#[test]
fn cat() {
    let mut random = Random(5);
    for dtype in DType::ALL {
        for (shape, dim) in [(vec![7], 0), (vec![4, 3], 0), (vec![4, 3], 1), (vec![2, 3, 16], 1), (vec![2, 0, 3], 0)] {
            for (count, one_run) in [(2, true), (3, false), (20, true)] {
                let mut part = || {
                    let mut shape = shape.clone();
                    shape[dim] = random.below(5) * if random.below(2) == 0 { 4 } else { 1 };
                    if one_run { random.values(&shape, dtype) } else { random.strided(&shape, dtype) }
                };
                let xs: Vec<Tensor> = (0..count).map(|_| part()).collect();
                let want = CpuBackend.cat(&xs, dim).expect("a kernel");
                let there: Vec<Tensor> = xs.iter().map(there).collect();
                let got = card().cat(&there, dim).expect("a kernel");
                close(&format!("cat of {count} {dtype}{shape:?} along {dim}"), &got, &want, 0.0, 1.0);
            }
        }
    }
}

#[test]
fn mean_and_variance() {
    let mut random = Random(6);
    let cases: [(&[usize], &[usize]); 9] = [
        (&[1], &[0]),
        (&[5000], &[0]),
        (&[3, 3000], &[1]),
        (&[3000, 3], &[0]),
        (&[70, 40], &[0]),
        (&[70, 40], &[1]),
        (&[4, 5, 33], &[0, 2]),
        (&[4, 5, 33], &[1]),
        (&[2, 3, 1, 4, 2], &[0, 2, 3]),
    ];
    for dtype in [DType::F32, DType::F64] {
        for (shape, dims) in cases {
            for correction in [0, 1] {
                let x = operand(&mut random, shape, dtype);
                // Far from 0, where E[x²] − E[x]² would cancel.
                for x in [&x + 300.0, x] {
                    let what = format!("{dtype}{shape:?} over {dims:?}");
                    let (mean, var) = card().mean_var(&there(&x), dims, correction as f64).expect("a kernel");
                    let wanted = x.to_dtype(DType::F64).mean_keepdims(dims).to_dtype(dtype);
                    close(&format!("mean of {what}"), &mean, &wanted, 32.0, 1.0);
                    let wanted = x.to_dtype(DType::F64).var_keepdims(dims, correction).to_dtype(dtype);
                    close(&format!("variance of {what}"), &var, &wanted, 64.0, 1.0);
                }
            }
        }
    }
    assert!(card().mean_var(&there(&Tensor::zeros([3, 0])), &[1], 1.0).is_none());
}

/// Every rule with every combination of its switches.
fn rules(step: u64) -> Vec<OptimizerStep> {
    let (lr, weight_decay, eps, first) = (0.01, 0.1, 1e-2, step == 1);
    let mut rules = vec![
        OptimizerStep::Adagrad(Adagrad { lr, lr_decay: 0.1, eps, weight_decay, step }),
        OptimizerStep::Adadelta(Adadelta { lr, rho: 0.9, eps, weight_decay }),
        OptimizerStep::Lion(Lion { lr, beta1: 0.5, beta2: 0.75, weight_decay }),
        OptimizerStep::Lerp { weight: 0.3 },
        OptimizerStep::ScaleAdd { keep: 0.9, scale: -0.2 },
        OptimizerStep::Sgd(Sgd { lr, momentum: 0.0, dampening: 0.0, weight_decay, nesterov: false, first }),
    ];
    for (a, b) in [(false, false), (false, true), (true, false), (true, true)] {
        let momentum = if b { 0.9 } else { 0.0 };
        let dampening = if a { 0.0 } else { 0.3 };
        rules.extend([
            OptimizerStep::Adam(Adam { lr, beta1: 0.9, beta2: 0.8, eps, weight_decay, decoupled: a, amsgrad: b, step }),
            OptimizerStep::RmsProp(RmsProp { lr, alpha: 0.9, eps, weight_decay, momentum, centered: a }),
            OptimizerStep::Sgd(Sgd { lr, momentum: 0.9, dampening, weight_decay, nesterov: a && b, first }),
        ]);
    }
    rules
}

#[test]
fn optimizer_steps() {
    let mut random = Random(7);
    for dtype in [DType::F32, DType::F64] {
        for n in [0, 1, 3, 64, 1037] {
            for case in 0..rules(1).len() {
                let p = random.values(&[n], dtype);
                let states = rules(1)[case].states();
                // NaN in what the first step must not read.
                let start = if matches!(rules(1)[case], OptimizerStep::Sgd(_)) { f64::NAN } else { 0.0 };
                let mut state: Vec<Tensor> = (0..states).map(|_| p.full_like(start)).collect();
                let (mut on_card, mut there_state) = (there(&p), state.iter().map(there).collect::<Vec<_>>());
                let mut p = p.copy();
                for step in 1..4 {
                    let rule = rules(step)[case];
                    let g = random.values(&[n], dtype);
                    assert!(CpuBackend.optimizer_step(&rule, &mut p, &g, &mut state));
                    assert!(card().optimizer_step(&rule, &mut on_card, &there(&g), &mut there_state));
                    // A handful of roundings a step; a root near 0 of a centred RMSprop magnifies them by 1/(2 eps).
                    let what = format!("{rule:?} of {n} {dtype}");
                    close(&what, &on_card, &p, 50.0 * 8.0 * step as f64, 1.0);
                    for (got, want) in there_state.iter().zip(&state) {
                        close(&what, got, want, 50.0 * 8.0 * step as f64, 4.0);
                    }
                }
            }
        }
        for rule in rules(2).into_iter().filter(|rule| rule.states() > 0) {
            let g = Tensor::from_vec(vec![1.0, f64::NAN, f64::INFINITY, 1.0, 2.0], [5]).to_dtype(dtype);
            let mut p = g.ones_like();
            let mut state: Vec<Tensor> = (0..rule.states()).map(|_| g.ones_like().copy()).collect();
            let (mut on_card, mut there_state) = (there(&p), state.iter().map(there).collect::<Vec<_>>());
            CpuBackend.optimizer_step(&rule, &mut p, &g, &mut state);
            card().optimizer_step(&rule, &mut on_card, &there(&g), &mut there_state);
            close(&format!("NaN in {rule:?}"), &on_card, &p, 32.0, 1.0);
        }
    }
}

#[test]
fn channel_norms() {
    let mut random = Random(8);
    for dtype in FLOATS {
        let mut shapes =
            vec![[0, 4, 3], [3, 4, 0], [1, 1, 1], [33, 6, 1], [2, 4, 16], [5, 6, 7], [2, 2, 3000], [700, 2, 3]];
        shapes.extend((0..4).map(|_| [1 + random.below(7), 2 * (1 + random.below(4)), 1 + random.below(40)]));
        for shape in shapes {
            let (x, g) = (operand(&mut random, &shape, dtype), operand(&mut random, &shape, dtype));
            let [w, b] = [0, 1].map(|_| operand(&mut random, &shape[1..2], dtype));
            for (w, b) in [(None, Some(&b)), (Some(&w), None), (Some(&w), Some(&b))] {
                check_batch_norm(&x, w, b, &g);
                for groups in [1, shape[1] / 2, shape[1]] {
                    if groups > 0 {
                        check_group_norm(&x, groups, w, b, &g);
                    }
                }
            }
        }
    }
}

/// Σ (x − mean)² + 0.01: rstd is at most 10.
const EPS: f64 = 1e-2;

fn check_batch_norm(x: &Tensor, w: Option<&Tensor>, b: Option<&Tensor>, g: &Tensor) {
    let what = format!("{}{}", x.dtype(), x.shape());
    let n = 64.0 + (x.dims()[0] * x.dims()[2]) as f64;
    let (x2, g2, w2, b2) = (there(x), there(g), w.map(there), b.map(there));
    let (mean, variance) = CpuBackend.batch_norm_statistics(x).expect("a kernel");
    let got = card().batch_norm_statistics(&x2).expect("a kernel");
    close(&format!("batch mean of {what}"), &got.0, &mean, n, 1.0);
    close(&format!("batch variance of {what}"), &got.1, &variance, n, 1.0);
    let rstd = (&variance + EPS).rsqrt();
    let (mean2, rstd2) = (there(&mean), there(&rstd));
    let y = CpuBackend.batch_norm_apply(x, &mean, &rstd, w, b).expect("a kernel");
    let got = card().batch_norm_apply(&x2, &mean2, &rstd2, w2.as_ref(), b2.as_ref()).expect("a kernel");
    // The terms are at most 30 times the weight, and may cancel.
    close(&format!("batch norm of {what}"), &got, &y, 8.0, 45.0);
    for training in [false, true] {
        let want = CpuBackend.batch_norm_backward(x, w, &mean, &rstd, g, training).expect("a kernel");
        let got = card().batch_norm_backward(&x2, w2.as_ref(), &mean2, &rstd2, &g2, training).expect("a kernel");
        check_gradients(&format!("batch norm of {what}, training {training}"), &got, &want, n);
    }
}

fn check_group_norm(x: &Tensor, groups: usize, w: Option<&Tensor>, b: Option<&Tensor>, g: &Tensor) {
    let what = format!("{}{} in {groups} groups", x.dtype(), x.shape());
    let n = 64.0 + (x.dims()[1] / groups * x.dims()[2] + x.dims()[0]) as f64;
    let (x2, g2, w2, b2) = (there(x), there(g), w.map(there), b.map(there));
    let (y, mean, rstd) = CpuBackend.group_norm(x, groups, w, b, EPS).expect("a kernel");
    let got = card().group_norm(&x2, groups, w2.as_ref(), b2.as_ref(), EPS).expect("a kernel");
    close(&format!("group mean of {what}"), &got.1, &mean, n, 1.0);
    close(&format!("group rstd of {what}"), &got.2, &rstd, n, 10.0);
    close(&format!("group norm of {what}"), &got.0, &y, n, 45.0);
    let want = CpuBackend.group_norm_backward(x, groups, w, &mean, &rstd, g).expect("a kernel");
    let got = card().group_norm_backward(&x2, groups, w2.as_ref(), &there(&mean), &there(&rstd), &g2);
    check_gradients(&format!("group norm of {what}"), &got.expect("a kernel"), &want, n);
}

/// `(dx, dweight, dbias)` of sums of `n` terms.
fn check_gradients(what: &str, got: &(Tensor, Tensor, Tensor), want: &(Tensor, Tensor, Tensor), n: f64) {
    close(&format!("dx of {what}"), &got.0, &want.0, n, 100.0);
    close(&format!("dweight of {what}"), &got.1, &want.1, n, 10.0);
    close(&format!("dbias of {what}"), &got.2, &want.2, n, 1.0);
}
