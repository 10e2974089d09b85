//! Derivatives of layer, RMS, group and batch norm: the input's, the weight's and the bias's.

mod differences;
#[path = "../../../golden/reader.rs"]
mod golden;

use differences::{derivatives, first_order, second_order, values};
use ferrograd_autograd::{Var, autocast};
use ferrograd_tensor::{DType, Tensor};
use golden::Golden;

const EPS: f64 = 1e-2;

#[test]
fn layer_norm_first_and_second_order() {
    let (x, w, b) = (values(&[2, 3, 4], 1), values(&[3, 4], 2), values(&[3, 4], 3));
    derivatives(|v| v[0].layer_norm(&[3, 4], Some(&v[1]), Some(&v[2]), EPS), &[x.clone(), w.clone(), b.clone()]);
    derivatives(|v| v[0].layer_norm(&[4], None, None, EPS), std::slice::from_ref(&x));
    first_order(|v| v[0].layer_norm(&[3, 4], None, Some(&v[1]), EPS), &[x.clone(), b.clone()]);
    first_order(|v| v[0].layer_norm(&[3, 4], Some(&v[1]), None, EPS), &[x.clone(), w.clone()]);
    // Only some of the inputs are variables.
    let (xc, wc) = (Var::constant(x.clone()), Var::constant(w.clone()));
    derivatives(|v| xc.layer_norm(&[3, 4], Some(&v[0]), Some(&v[1]), EPS), &[w, b]);
    derivatives(|v| v[0].layer_norm(&[3, 4], Some(&wc), None, EPS), &[x]);
}

#[test]
fn rms_norm_first_and_second_order() {
    let (x, w) = (values(&[3, 5], 1), values(&[5], 2));
    derivatives(|v| v[0].rms_norm(&[5], Some(&v[1]), EPS), &[x.clone(), w.clone()]);
    derivatives(|v| v[0].rms_norm(&[3, 5], None, EPS), std::slice::from_ref(&x));
    let w = Var::constant(w);
    derivatives(|v| v[0].rms_norm(&[5], Some(&w), EPS), &[x]);
}

#[test]
fn norms_of_sums_first_and_second_order() {
    let (x, residual, w, b) = (values(&[3, 5], 1), values(&[3, 5], 4), values(&[5], 2), values(&[5], 3));
    let all = [x.clone(), residual.clone(), w.clone(), b];
    // Both outputs, and each alone.
    derivatives(|v| both(v[0].add_layer_norm(&v[1], &[5], Some(&v[2]), Some(&v[3]), EPS)), &all);
    derivatives(|v| v[0].add_layer_norm(&v[1], &[5], Some(&v[2]), Some(&v[3]), EPS).0, &all);
    derivatives(
        |v| v[0].add_layer_norm(&v[1], &[5], None, Some(&v[2]), EPS).0,
        &[x.clone(), residual.clone(), w.clone()],
    );
    derivatives(|v| v[0].add_layer_norm(&v[1], &[3, 5], None, None, EPS).1.square(), &all[..2]);
    derivatives(|v| both(v[0].add_rms_norm(&v[1], &[5], Some(&v[2]), EPS)), &all[..3]);
    derivatives(|v| v[0].add_rms_norm(&v[1], &[5], Some(&v[2]), EPS).0, &all[..3]);
    derivatives(|v| v[0].add_rms_norm(&v[1], &[3, 5], None, EPS).1.square(), &all[..2]);
    // Only some of the inputs are variables; one value is both terms.
    let (xc, wc) = (Var::constant(x.clone()), Var::constant(w));
    derivatives(|v| both(xc.add_layer_norm(&v[0], &[5], Some(&wc), None, EPS)), &[residual]);
    derivatives(|v| both(v[0].add_rms_norm(&v[0], &[5], Some(&wc), EPS)), &[x]);
}

/// A function of the norm and the sum that has both in every derivative.
fn both((y, sum): (Var, Var)) -> Var {
    y * sum.sin()
}

#[test]
fn group_norm_first_and_second_order() {
    let (x, w, b) = (values(&[2, 4, 3], 1), values(&[4], 2), values(&[4], 3));
    derivatives(|v| v[0].group_norm(2, Some(&v[1]), Some(&v[2]), EPS), &[x.clone(), w, b]);
    first_order(|v| v[0].group_norm(4, None, None, EPS), std::slice::from_ref(&x));
    second_order(|v| v[0].transpose(0, 2).group_norm(1, None, None, EPS), &[x]);
}

#[test]
fn batch_norm_first_and_second_order() {
    let (w, b) = (values(&[3], 2), values(&[3], 3));
    for shape in [&[4, 3][..], &[2, 3, 4], &[2, 3, 2, 2]] {
        let x = values(shape, 1);
        derivatives(|v| v[0].batch_norm(Some(&v[1]), Some(&v[2]), EPS).0, &[x.clone(), w.clone(), b.clone()]);
        let (mean, variance) = (values(&[3], 4), values(&[3], 5).square());
        derivatives(
            |v| v[0].batch_norm_eval(&mean, &variance, Some(&v[1]), Some(&v[2]), EPS),
            &[x.clone(), w.clone(), b.clone()],
        );
        first_order(|v| v[0].batch_norm(None, None, EPS).0, std::slice::from_ref(&x));
        first_order(|v| v[0].batch_norm_eval(&mean, &variance, None, None, EPS), &[x]);
    }
    let (_, mean, variance) = Var::leaf(values(&[4, 3], 1)).batch_norm(None, None, EPS);
    assert_eq!((mean.dims(), variance.dims()), (&[3][..], &[3][..]));
}

/// In a chain, everything before the norm gets its gradient too.
#[test]
fn gradients_reach_what_comes_before() {
    let (x, m) = (values(&[4, 3], 1), values(&[3, 5], 2));
    let (w, b) = (values(&[5], 3), values(&[5], 4));
    derivatives(|v| v[0].matmul(&v[1]).layer_norm(&[5], Some(&v[2]), Some(&v[3]), EPS).tanh(), &[x, m, w, b]);
}

#[test]
fn golden_gradients() {
    let file = Golden::open("ops");
    let mut seen = 0;
    for case in file.cases() {
        let (case, config) = (&case[..], file.config(&case));
        if !case.contains("_norm") || case.contains("clip") {
            continue;
        }
        let leaf = |name: &str| file.get(case, &format!("input.{name}")).map(Var::leaf);
        let eps = config["eps"].as_f64().unwrap_or(1e-5);
        let shape = || -> Vec<usize> {
            config["normalized_shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
        };
        let Some(x) = leaf("input") else { continue };
        let (weight, bias) = (leaf("weight"), leaf("bias"));
        let (w, b) = (weight.as_ref(), bias.as_ref());
        let y = match &case[..5] {
            "layer" => x.layer_norm(&shape(), w, b, eps),
            "rms_n" => x.rms_norm(&shape(), w, eps),
            "group" => x.group_norm(config["num_groups"].as_u64().unwrap() as usize, w, b, eps),
            "batch" if config["training"].as_bool().unwrap() => x.batch_norm(w, b, eps).0,
            "batch" => {
                let buffer = |name: &str| file.expect(case, &format!("buffer.{name}"));
                x.batch_norm_eval(&buffer("running_mean"), &buffer("running_var"), w, b, eps)
            }
            _ => continue,
        };
        seen += 1;
        assert!(y.tensor().all_close(&file.expect(case, "output.out"), 1e-12, 1e-13), "{case}");
        let grads = y.backward_from(&file.expect(case, "grad_output"));
        for (name, v) in [("input", Some(&x)), ("weight", w), ("bias", b)] {
            if let Some(v) = v {
                let want = file.expect(case, &format!("grad_input.{name}"));
                assert!(grads.wrt(v).all_close(&want, 1e-10, 1e-12), "{case} {name}");
            }
        }
    }
    assert_eq!(seen, 14);
}

#[test]
fn golden_gradients_of_norms_of_sums() {
    let file = Golden::open("transformer");
    let mut seen = 0;
    for case in file.cases().iter().filter(|case| case.starts_with("add_")) {
        let leaf = |name: &str| file.get(case, &format!("input.{name}")).map(Var::leaf);
        let [x, residual, weight] = ["x", "residual", "weight"].map(|name| leaf(name).expect("an input"));
        let (bias, eps) = (leaf("bias"), file.config(case)["eps"].as_f64().unwrap());
        let (y, sum) = match case.starts_with("add_rms") {
            true => x.add_rms_norm(&residual, &[5], Some(&weight), eps),
            false => x.add_layer_norm(&residual, &[5], Some(&weight), bias.as_ref(), eps),
        };
        let (want_y, want_sum) = (file.expect(case, "output.y"), file.expect(case, "output.sum"));
        assert!(y.tensor().all_close(&want_y, 1e-12, 1e-13) && sum.tensor().all_close(&want_sum, 0.0, 0.0), "{case}");
        let [g_y, g_sum] = ["y", "sum"].map(|name| file.expect(case, &format!("grad_output.{name}")));
        let grads = ((y * &g_y).sum() + (sum * &g_sum).sum()).backward();
        let inputs =
            [("x", Some(&x)), ("residual", Some(&residual)), ("weight", Some(&weight)), ("bias", bias.as_ref())];
        for (name, v) in inputs {
            if let Some(v) = v {
                let want = file.expect(case, &format!("grad_input.{name}"));
                assert!(grads.wrt(v).all_close(&want, 1e-10, 1e-12), "{case} {name}");
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[test]
fn norms_of_sums_keep_the_sum_alone() {
    for dtype in [DType::BF16, DType::F32] {
        let [x, residual] = [1, 2].map(|seed| Var::leaf(values(&[4, 6], seed).to_dtype(dtype)));
        let (y, sum) = autocast(DType::BF16, || x.add_rms_norm(&residual, &[6], None, EPS));
        assert_eq!((y.dtype(), sum.dtype()), (DType::F32, dtype));
        assert_eq!((y + sum).sum().backward().wrt(&x).dtype(), dtype);
    }
    let [mut x, mut residual] = [3, 4].map(|seed| values(&[4, 6], seed));
    let (y, sum) = Var::leaf(x.clone()).add_rms_norm(&Var::leaf(residual.clone()), &[6], None, EPS);
    assert!(y.requires_grad() && sum.requires_grad() && x.is_unique() && residual.is_unique());
    let x = Var::leaf(Tensor::zeros([0, 3]));
    let (y, sum) = x.add_layer_norm(&x, &[3], None, None, EPS);
    assert_eq!((y + sum).sum().backward().wrt(&x).dims(), [0, 3]);
}

#[test]
fn half_types_and_autocast() {
    for dtype in [DType::BF16, DType::F16] {
        let half = |shape: &[usize], seed| values(shape, seed).to_dtype(dtype);
        let (x, w, b) = (half(&[4, 6], 1), half(&[6], 2), half(&[6], 3));
        let run = |dtype: DType| {
            let [x, w, b] = [&x, &w, &b].map(|t| Var::leaf(t.to_dtype(dtype)));
            let y = x.layer_norm(&[6], Some(&w), Some(&b), EPS) + x.batch_norm(Some(&w), None, EPS).0;
            let g = y.sum().backward();
            assert_eq!(y.dtype(), dtype);
            [&x, &w, &b].map(|v| {
                assert_eq!(g.wrt(v).dtype(), dtype);
                g.wrt(v).to_dtype(DType::F64)
            })
        };
        for (got, want) in run(dtype).iter().zip(run(DType::F64)) {
            // Two terms, each rounded, and their sum: of numbers up to about 4.
            assert!(got.all_close(&want, 2.0 * dtype.epsilon(), 8.0 * dtype.epsilon()), "{got}\nis not\n{want}");
        }
        // f32 master weights beside half activations.
        let (x, w) = (Var::leaf(x.clone()), Var::leaf(w.to_dtype(DType::F32)));
        let y = autocast(dtype, || x.layer_norm(&[6], Some(&w), None, EPS));
        assert_eq!(y.dtype(), DType::F32);
        let grads = y.sum().backward();
        assert_eq!((grads.wrt(&x).dtype(), grads.wrt(&w).dtype()), (dtype, DType::F32));
    }
}

#[test]
fn nothing_at_all() {
    let (x, w) = (Var::leaf(Tensor::zeros([0, 3])), Var::leaf(Tensor::ones([3])));
    let grads = x.layer_norm(&[3], Some(&w), None, EPS).sum().backward();
    assert_eq!((grads.wrt(&x).numel(), grads.wrt(&w).to_vec::<f32>()), (0, vec![0.0; 3]));
    let x = Var::leaf(Tensor::zeros([2, 3, 0]));
    let grads = x.group_norm(3, Some(&w), None, EPS).sum().backward();
    assert_eq!((grads.wrt(&x).numel(), grads.wrt(&w).to_vec::<f32>()), (0, vec![0.0; 3]));
}
