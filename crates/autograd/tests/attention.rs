//! Attention: fused derivatives against finite differences, the composition and PyTorch; second derivatives.

#[path = "../../../golden/reader.rs"]
mod golden;
#[path = "../../tensor/tests/plain/mod.rs"]
mod plain;
#[path = "../../tensor/tests/sample/mod.rs"]
mod sample;

use ferrograd_autograd::ops::AttentionOptions;
use ferrograd_autograd::{GradOptions, Var, autocast, grad, grad_with, gradcheck, gradgradcheck};
use ferrograd_tensor::random::with_seed;
use ferrograd_tensor::{DType, Device, Tensor};
use golden::Golden;
use plain::device as plain;
use proptest::prelude::*;
use sample::{distance, values};

fn leaves(tensors: &[Tensor]) -> Vec<Var> {
    tensors.iter().map(|x| Var::leaf(x.clone())).collect()
}

#[test]
fn pytorch() {
    let file = Golden::open("ops");
    let cases: Vec<String> = file.cases().into_iter().filter(|case| case.starts_with("sdpa_")).collect();
    assert_eq!(cases.len(), 14);
    for case in cases {
        let config = file.config(&case);
        let names = ["query", "key", "value"];
        let [q, k, v] = names.map(|name| Var::leaf(file.expect(&case, &format!("input.{name}"))));
        let mut options = AttentionOptions {
            mask: file.get(&case, "input.attn_mask"),
            causal: config["is_causal"].as_bool().unwrap_or(false),
            scale: config["scale"].as_f64(),
            ..AttentionOptions::default()
        };
        let mask_gradient = file.get(&case, "grad_input.attn_mask");
        if mask_gradient.is_some() {
            options.mask_var = options.mask.take().map(Var::leaf);
        }
        let y = q.scaled_dot_product_attention(&k, &v, &options);
        assert!(distance(y.tensor(), &file.expect(&case, "output.out")) < 1e-12, "{case}");
        let grads = y.backward_from(&file.expect(&case, "grad_output"));
        for (name, x) in names.iter().zip([&q, &k, &v]) {
            assert!(
                distance(grads.wrt(x), &file.expect(&case, &format!("grad_input.{name}"))) < 1e-12,
                "{case} {name}"
            );
        }
        if let Some(expected) = mask_gradient {
            assert!(distance(grads.wrt(options.mask_var.as_ref().unwrap()), &expected) < 1e-12, "{case} mask");
        }
        let weights = q.attention_weights(&k, &options);
        assert!((weights.sum_dims(-1).tensor().max().item::<f64>() - 1.0).abs() < 1e-12, "{case}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]
    /// On a backend without fused kernels forward and backward go through `composed`.
    #[test]
    fn fused_derivatives_are_composed(
        (b, hk, group, tq, tk) in (0usize..3, 1usize..3, 1usize..3, 0usize..5, 0usize..5),
        (d, dv, masks, broadcast) in (1usize..4, 1usize..4, 0usize..4, 0usize..16),
        (causal, drop, seed) in (any::<bool>(), any::<bool>(), 0u64..1 << 40),
    ) {
        let h = hk * group;
        let shape: Vec<usize> =
            [b, h, tq, tk].iter().enumerate().map(|(i, &n)| if broadcast >> i & 1 == 1 { 1 } else { n }).collect();
        let x = [
            values([b, h, tq, d], DType::F64, seed),
            values([b, hk, tk, d], DType::F64, seed / 5),
            values([b, hk, tk, dv], DType::F64, seed / 25),
            values(shape, DType::F64, seed / 125),
        ];
        let weights = values([b, h, tq, dv], DType::F64, seed / 625);
        let run = |device: Device| {
            let x = leaves(&x.each_ref().map(|x| x.to_device(&device)));
            let options = AttentionOptions {
                mask: (masks & 1 == 1).then(|| x[3].tensor().gt_scalar(-0.3)),
                mask_var: (masks & 2 == 2).then(|| x[3].clone()),
                causal,
                window: (causal && seed % 2 == 0).then_some(1 + seed as usize % 3),
                key_lengths: (seed % 3 == 0).then(|| {
                    let lengths = (0..b as u64).map(|b| ((seed / 7 + 11 * b) % (tk as u64 + 1)) as i64);
                    Tensor::from_vec(lengths.collect(), b).to_device(&device)
                }),
                dropout: if drop { 0.4 } else { 0.0 },
                ..AttentionOptions::default()
            };
            let y = with_seed(seed, || x[0].scaled_dot_product_attention(&x[1], &x[2], &options));
            let grads = y.backward_from(&weights.to_device(&device));
            let found = x.iter().map(|x| grads.get(x).cloned().unwrap_or_else(|| x.tensor().zeros_like()));
            std::iter::once(y.tensor().clone()).chain(found).map(|t| t.to_device(&Device::default())).collect::<Vec<_>>()
        };
        for (i, (fused, composed)) in run(Device::default()).iter().zip(run(plain())).enumerate() {
            prop_assert!(distance(fused, &composed) < 1e-13, "{i}: {}", distance(fused, &composed));
        }
    }
}

/// Tiny, with two query heads per key head, and a mask that leaves the second query nothing.
fn tiny() -> ([Tensor; 4], Tensor) {
    let shapes: [[usize; 4]; 4] = [[1, 2, 2, 2], [1, 1, 3, 2], [1, 1, 3, 2], [1, 2, 1, 3]];
    let mut seed = 3;
    let x = shapes.map(|shape| {
        seed += 1;
        values(shape, DType::F64, seed)
    });
    (x, Tensor::new([[true, true, false], [false, false, false]]))
}

#[test]
fn first_and_second_derivatives_are_the_differences() {
    let (x, mask) = tiny();
    for case in 0..6 {
        let f = |x: &[Var]| {
            let options = AttentionOptions {
                mask: (case == 1).then(|| mask.clone()),
                mask_var: (case >= 2).then(|| x[3].clone()),
                causal: case == 3,
                dropout: if case == 4 { 0.4 } else { 0.0 },
                key_lengths: (case == 5).then(|| Tensor::new([2i64])),
                ..AttentionOptions::default()
            };
            with_seed(8, || x[0].scaled_dot_product_attention(&x[1], &x[2], &options))
        };
        gradcheck(f, &x).unwrap();
        gradgradcheck(f, &x).unwrap();
    }
}

#[test]
fn a_gradient_penalty_goes_through_attention() {
    // L = |∂y/∂q|², and its derivative by k against central differences.
    let ([q, k, v, _], _) = tiny();
    let penalty = |k: &Tensor, create_graph: bool| {
        let [q, k, v] = [&q, k, &v].map(|x| Var::leaf(x.clone()));
        let y = q.scaled_dot_product_attention(&k, &v, &AttentionOptions::default()).square().sum();
        let options = GradOptions { create_graph, retain_graph: true, ..GradOptions::default() };
        let g = grad_with(&[&y], &[&q], options).remove(0);
        (g.square().sum(), k)
    };
    let (value, leaf) = penalty(&k, true);
    assert!((value.item::<f64>() - penalty(&k, false).0.item::<f64>()).abs() < 1e-14);
    let analytic = grad(&value, &[&leaf]).remove(0).tensor().to_vec::<f64>();
    for i in 0..analytic.len() {
        let at = |h: f64| {
            let mut bumped = k.to_vec::<f64>();
            bumped[i] += h;
            penalty(&Tensor::from_vec(bumped, k.shape()), false).0.item::<f64>()
        };
        let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((analytic[i] - numeric).abs() < 1e-8, "{i}: {} ≠ {numeric}", analytic[i]);
    }
    assert!(analytic.iter().any(|g| g.abs() > 1e-4));
}

#[test]
fn dropout_is_the_same_mask_forward_backward_and_composed() {
    let [q, k] = [1, 2].map(|seed| Var::constant(values([1, 2, 6, 4], DType::F64, seed)));
    let v = Var::leaf(values([1, 2, 6, 3], DType::F64, 3));
    let options = AttentionOptions { dropout: 0.5, ..AttentionOptions::default() };
    let y = with_seed(4, || q.scaled_dot_product_attention(&k, &v, &options));
    let again = with_seed(4, || q.scaled_dot_product_attention(&k, &v, &options));
    assert_eq!(y.tensor().to_vec::<f64>(), again.tensor().to_vec::<f64>());
    // The same stream's weights: about half of them zero; with them the attention and its gradient are products.
    let p = with_seed(4, || q.attention_weights(&k, &options)).into_tensor();
    let dropped = p.eq_scalar(0.0).sum().item::<i64>();
    assert!((18..54).contains(&dropped), "{dropped} of 72");
    assert!(distance(y.tensor(), &p.matmul(v.tensor())) < 1e-14);
    let g = values([1, 2, 6, 3], DType::F64, 5);
    assert!(distance(y.backward_from(&g).wrt(&v), &p.t().matmul(&g)) < 1e-14);
    // Each call takes a stream.
    let two = with_seed(4, || [0, 1].map(|_| q.scaled_dot_product_attention(&k, &v, &options)));
    assert!(distance(two[0].tensor(), two[1].tensor()) > 1e-3);
}

#[test]
fn weights_do_not_look_behind_the_keys() {
    let [q, k, _, _] = tiny().0;
    let (padding, lengths) = (Tensor::full([1, 1, 1, 2], f64::NAN), Tensor::new([2i64]));
    let padded = Tensor::cat(&[&k.narrow(2, 0, 2), &padding.to_dtype(k.dtype())], 2);
    let x = leaves(&[q, padded]);
    let options = AttentionOptions { key_lengths: Some(lengths), ..AttentionOptions::default() };
    let grads = x[0].attention_weights(&x[1], &options).square().sum().backward();
    for x in &x {
        assert!(grads.wrt(x).is_finite().all().item::<bool>());
    }
}

#[test]
fn half_types_and_autocast() {
    let x = [1, 2, 3].map(|seed| values([2, 2, 5, 4], DType::F32, seed));
    let exact = leaves(&x);
    let options = AttentionOptions { causal: true, ..AttentionOptions::default() };
    let y = exact[0].scaled_dot_product_attention(&exact[1], &exact[2], &options);
    let expected = y.backward_from(&y.tensor().ones_like());
    for dtype in [DType::BF16, DType::F16] {
        let cast = leaves(&x);
        let half = autocast(dtype, || cast[0].scaled_dot_product_attention(&cast[1], &cast[2], &options));
        assert_eq!(half.dtype(), dtype);
        // Every input is rounded once (ε/2, amplified by the softmax of scores below 2), the result once.
        assert!(distance(&half.tensor().to_dtype(DType::F32), y.tensor()) < 4.0 * dtype.epsilon());
        let grads = half.backward_from(&half.tensor().ones_like());
        for (a, b) in exact.iter().zip(&cast) {
            assert!(distance(grads.wrt(b), expected.wrt(a)) < 8.0 * dtype.epsilon());
        }
    }
}
