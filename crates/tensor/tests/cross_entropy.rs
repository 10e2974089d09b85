//! Cross-entropy: the CPU's kernel against its composition, every option at once, golden values, errors.

#[path = "../../../golden/reader.rs"]
mod golden;

use ferrograd_tensor::backend::CrossEntropyRows;
use ferrograd_tensor::ops::cross_entropy::{composed, composed_backward};
use ferrograd_tensor::{CrossEntropy, DType, Reduction, Tensor, catch};
use golden::Golden;
use proptest::prelude::*;

/// Repeatable values in [−2, 2).
fn values(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / (1u64 << 22) as f64 - 2.0
    };
    (0..n).map(next).collect()
}

#[track_caller]
fn close(got: &Tensor, want: &Tensor, dtype: DType, roundings: f64) {
    assert_eq!((got.shape(), got.dtype()), (want.shape(), dtype));
    let step = if dtype == DType::F16 { 6e-8 } else { 0.0 };
    let absolute = dtype.accumulator().epsilon() * roundings + step;
    for (g, w) in got.to_f64_vec().into_iter().zip(want.to_f64_vec()) {
        let ok = g == w || (g - w).abs() <= dtype.epsilon() * w.abs() + absolute || (g.is_nan() && w.is_nan());
        assert!(ok, "{g} is not {w} ({dtype})");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_kernel_is_its_composition(
        n in 0usize..4, v in 1usize..8, rest in prop::collection::vec(0usize..4, 0..3), seed: u64,
        weight: bool, ignore in 0usize..3, smoothing in prop_oneof![Just(0.0), 0.0..1.0], layout in 0u8..4,
    ) {
        let positions: Vec<usize> = [n].into_iter().chain(rest.iter().copied()).collect();
        let count: usize = positions.iter().product();
        let mut ignore_index = [Some(-100), Some(v as i64 - 1), None][ignore];
        let classes = values(count, seed ^ 1).into_iter().map(|x| {
            let y = ((x + 2.0) / 4.0 * (v + 1) as f64) as i64;
            if y == v as i64 { ignore_index.unwrap_or(0) } else { y }
        });
        let mut targets = Tensor::from_vec(classes.collect::<Vec<i64>>(), &positions[..]);
        if layout & 1 != 0 {
            targets = targets.flip(0);
        }
        if layout & 2 != 0 && ignore_index.is_some() {
            // Nothing counts.
            targets = targets.full_like(-7.0);
            ignore_index = Some(-7);
        }
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            // Classes last in memory, dimension 1 by name.
            let held: Vec<usize> = positions.iter().copied().chain([v]).collect();
            let mut x = Tensor::from_vec(values(count * v, seed), &held[..]).to_dtype(dtype) * 3.0;
            let r = positions.len();
            let order: Vec<usize> = [0, r].into_iter().chain(1..r).collect();
            x = x.permute_dims(&order);
            if layout & 1 != 0 {
                x = x.flip(1).contiguous().flip(1);
            }
            let w = weight.then(|| (Tensor::from_vec(values(v, seed ^ 2), v) + 2.5).to_dtype(dtype));
            let rows = x.permute_dims(&[0].into_iter().chain(2..r + 1).chain([1]).collect::<Vec<_>>()).reshape([count, v]);
            let (rows, flat) = (rows.to_dtype(DType::F64), targets.flatten());
            let wide = w.as_ref().map(|w| w.to_dtype(DType::F64));
            let o = CrossEntropyRows { weight: wide.as_ref(), ignore_index, label_smoothing: smoothing };
            let (loss, lse, total) = composed(&rows, &flat, &o);
            for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
                let options = CrossEntropy { weight: w.clone(), ignore_index, label_smoothing: smoothing, reduction };
                let (got, got_lse, got_total) = x.cross_entropy_with_stats(&targets, &options);
                let (want, g) = match reduction {
                    Reduction::Mean => (loss.sum() / &total, Tensor::scalar(0.5)),
                    Reduction::Sum => (loss.sum(), Tensor::scalar(-1.5)),
                    Reduction::None => (loss.reshape(&positions[..]), Tensor::from_vec(values(count, !seed), &positions[..])),
                };
                close(&got, &want, dtype, 4096.0);
                close(&got_lse, &lse.reshape(&positions[..]), dtype.accumulator(), 64.0);
                close(&got_total, &total, dtype.accumulator(), 512.0);
                let g = g.to_dtype(dtype);
                let dx = x.cross_entropy_backward(&targets, &options, &got_lse, &got_total, &g);
                assert_eq!((dx.shape(), dx.dtype()), (x.shape(), dtype));
                let g = g.to_dtype(DType::F64);
                let scale = match reduction {
                    Reduction::Mean => (g / &total).expand(count),
                    Reduction::Sum => g.expand(count),
                    Reduction::None => g.reshape(count),
                };
                let want = composed_backward(&rows, &flat, &lse, &scale, &o);
                let dx = dx.permute_dims(&[0].into_iter().chain(2..r + 1).chain([1]).collect::<Vec<_>>()).reshape([count, v]);
                close(&dx, &want, dtype, 512.0);
            }
        }
    }
}

#[test]
fn nothing_to_average_is_nan_and_has_no_gradient() {
    let (x, targets) = (Tensor::ones([2, 3]), Tensor::new([-100i64, -100]));
    let options = CrossEntropy::default();
    let (loss, lse, total) = x.cross_entropy_with_stats(&targets, &options);
    assert!(loss.item::<f32>().is_nan());
    let dx = x.cross_entropy_backward(&targets, &options, &lse, &total, &Tensor::scalar(1.0f32));
    assert_eq!(dx.to_vec::<f32>(), [0.0; 6]);
    let sum = CrossEntropy { reduction: Reduction::Sum, ..options };
    assert_eq!(x.cross_entropy(&targets, &sum).item::<f32>(), 0.0);
    // No class at all, and nothing that needs one.
    assert_eq!(Tensor::ones([2, 0]).cross_entropy(&targets, &sum).item::<f32>(), 0.0);
    let rows = CrossEntropyRows { weight: None, ignore_index: Some(-100), label_smoothing: 0.0 };
    assert_eq!(composed(&Tensor::ones([2, 0]), &targets, &rows).0.to_vec::<f32>(), [0.0, 0.0]);
}

#[test]
fn an_impossible_class_may_have_the_logit_minus_infinity() {
    let x = Tensor::new([[0.0, f32::NEG_INFINITY, 0.0]]);
    let targets = Tensor::new([0i64]);
    let options = CrossEntropy::default();
    let (loss, lse, total) = x.cross_entropy_with_stats(&targets, &options);
    assert!((loss.item::<f32>() - 2f32.ln()).abs() < 1e-6);
    let dx = x.cross_entropy_backward(&targets, &options, &lse, &total, &Tensor::scalar(1.0f32));
    assert!(dx.all_close(&Tensor::new([[-0.5f32, 0.0, 0.5]]), 0.0, 1e-6));
    let rows = CrossEntropyRows { weight: None, ignore_index: None, label_smoothing: 0.0 };
    assert!(composed(&x, &targets, &rows).0.all_close(&loss.reshape(1), 0.0, 1e-6));
}

#[test]
fn golden_values() {
    let file = Golden::open("ops");
    let mut seen = 0;
    for case in file.cases().iter().filter(|c| c.starts_with("cross_entropy")) {
        let config = file.config(case);
        let reduction = match config["reduction"].as_str().unwrap() {
            "mean" => Reduction::Mean,
            "sum" => Reduction::Sum,
            _ => Reduction::None,
        };
        let options = CrossEntropy {
            weight: file.get(case, "input.weight"),
            ignore_index: Some(config["ignore_index"].as_i64().unwrap_or(-100)),
            label_smoothing: config["label_smoothing"].as_f64().unwrap_or(0.0),
            reduction,
        };
        let (x, targets) = (file.expect(case, "input.input"), file.expect(case, "input.target"));
        let want = file.expect(case, "output.out");
        if targets.dtype() == DType::I64 {
            let (loss, lse, total) = x.cross_entropy_with_stats(&targets, &options);
            close(&loss, &want, DType::F64, 32.0);
            let dx = x.cross_entropy_backward(&targets, &options, &lse, &total, &file.expect(case, "grad_output"));
            close(&dx, &file.expect(case, "grad_input.input"), DType::F64, 32.0);
        } else {
            close(&x.cross_entropy_probs(&targets, &options), &want, DType::F64, 32.0);
        }
        seen += 1;
    }
    assert_eq!(seen, 27);
}

#[test]
fn errors_say_what_is_wrong() {
    let (x, t) = (Tensor::zeros([2, 3, 2]), Tensor::new([[0i64, 1], [2, -100]]));
    let plain = CrossEntropy::default();
    let message = |x: &Tensor, t: &Tensor, o: &CrossEntropy| catch(|| x.cross_entropy(t, o)).unwrap_err().to_string();
    assert_eq!(x.cross_entropy(&t, &plain).rank(), 0);
    for (t, want) in [
        (
            Tensor::new([[0i64, 1], [3, 0]]),
            "target 3 at [1, 0] is outside of the classes 0..3 and is not ignore_index -100",
        ),
        (
            Tensor::new([[0i64, -1], [0, 0]]),
            "target -1 at [0, 1] is outside of the classes 0..3 and is not ignore_index -100",
        ),
        (Tensor::new([0i64, 1]), "logits [2, 3, 2] need targets [2, 2], got [2]"),
        (
            Tensor::new([0i32, 1]),
            "targets are classes and must be i64, got i32 (for probabilities: cross_entropy_probs)",
        ),
    ] {
        assert_eq!(message(&x, &t, &plain), format!("cross_entropy: {want}"));
    }
    let none = CrossEntropy { ignore_index: None, ..plain.clone() };
    assert_eq!(message(&x, &t, &none), "cross_entropy: target -100 at [1, 1] is outside of the classes 0..3");
    let smooth = CrossEntropy { label_smoothing: 1.5, ..plain.clone() };
    assert_eq!(message(&x, &t, &smooth), "cross_entropy: label_smoothing 1.5 is outside of [0, 1]");
    let weight = CrossEntropy { weight: Some(Tensor::ones([2])), ..plain.clone() };
    assert_eq!(message(&x, &t, &weight), "cross_entropy: weight has shape [2], logits [2, 3, 2] have 3 classes");
    let named = CrossEntropy { ignore_index: Some(1), ..plain.clone() };
    assert_eq!(
        catch(|| x.cross_entropy_probs(&x, &named)).unwrap_err().to_string(),
        "cross_entropy_probs: ignore_index 1 names a class, and the targets are probabilities"
    );
}
