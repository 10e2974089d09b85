//! Derivatives of cross-entropy with every option.

mod differences;
#[path = "../../../golden/reader.rs"]
mod golden;

use differences::{derivatives, values};
use ferrograd_autograd::{CrossEntropy, GradOptions, Reduction, Var, autocast, grad, grad_with};
use ferrograd_tensor::{DType, Error, Tensor, catch};
use golden::Golden;

#[test]
fn first_and_second_order() {
    let x = values(&[3, 4, 2], 1) * 2.0;
    let targets = Tensor::new([[0i64, 3], [-100, 1], [2, 2]]);
    let weight = values(&[4], 2) + 1.5;
    for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        let plain = CrossEntropy { reduction, ..CrossEntropy::default() };
        derivatives(|x| x[0].cross_entropy(&targets, &plain), std::slice::from_ref(&x));
        let all = CrossEntropy { weight: Some(weight.clone()), label_smoothing: 0.2, ..plain };
        derivatives(|x| x[0].cross_entropy(&targets, &all), std::slice::from_ref(&x));
        let probabilities = values(&[3, 4, 2], 3).softmax(1);
        derivatives(|x| x[0].cross_entropy_probs(&probabilities, &all), std::slice::from_ref(&x));
    }
}

/// The fused loss is the textbook's composition, gradient included.
#[test]
fn the_loss_is_minus_the_log_softmax_of_the_class() {
    let x = Var::leaf(values(&[3, 4], 1));
    let targets = Tensor::new([2i64, 0, 3]);
    let hot = Tensor::new([[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]);
    let composed = -(x.log_softmax(1) * &hot).sum() * (1.0 / 3.0);
    let fused = x.cross_entropy(&targets, &CrossEntropy::default());
    let probs = x.cross_entropy_probs(&hot, &CrossEntropy::default());
    for loss in [&fused, &probs] {
        assert!((loss.item::<f64>() - composed.item::<f64>()).abs() < 1e-14);
        assert!(grad(loss, &[&x])[0].tensor().all_close(grad(&composed, &[&x])[0].tensor(), 0.0, 1e-14));
    }
}

#[test]
fn golden_gradients() {
    let file = Golden::open("ops");
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
        let (x, targets) = (Var::leaf(file.expect(case, "input.input")), file.expect(case, "input.target"));
        let loss = match targets.dtype() {
            DType::I64 => x.cross_entropy(&targets, &options),
            _ => x.cross_entropy_probs(&targets, &options),
        };
        assert!(loss.tensor().all_close(&file.expect(case, "output.out"), 1e-13, 1e-14), "{case}");
        let grads = loss.backward_from(&file.expect(case, "grad_output"));
        assert!(grads.wrt(&x).all_close(&file.expect(case, "grad_input.input"), 1e-12, 1e-14), "{case}");
    }
}

#[test]
fn half_types_and_autocast() {
    let targets = Tensor::new([1i64, 4, 0]);
    for dtype in [DType::BF16, DType::F16] {
        let x = Var::leaf(values(&[3, 5], 1).to_dtype(dtype));
        let loss = x.cross_entropy(&targets, &CrossEntropy::default());
        let wide = Var::leaf(x.tensor().to_dtype(DType::F64));
        let want = wide.cross_entropy(&targets, &CrossEntropy::default());
        assert!((loss.item::<f64>() - want.item::<f64>()).abs() < 2.0 * dtype.epsilon());
        let (got, want) = (grad(&loss, &[&x]), grad(&want, &[&wide]));
        assert!(got[0].tensor().to_dtype(DType::F64).all_close(want[0].tensor(), 0.0, dtype.epsilon()));
        let raised = autocast(dtype, || x.cross_entropy(&targets, &CrossEntropy::default()));
        assert_eq!((raised.dtype(), grad(&raised, &[&x])[0].dtype()), (DType::F32, dtype));
    }
}

#[test]
fn infinite_logits_and_nothing_to_average() {
    let x = Var::leaf(Tensor::new([[0.0, f64::NEG_INFINITY, 0.0], [1.0, 2.0, 3.0]]));
    let options = CrossEntropy::default();
    let loss = x.cross_entropy(&Tensor::new([0i64, 2]), &options);
    let with_history = grad_with(&[&loss], &[&x], GradOptions::create_graph());
    let plain = grad(&loss, &[&x]);
    assert!(plain[0].tensor().is_finite().all().item::<bool>());
    assert!(with_history[0].tensor().all_close(plain[0].tensor(), 0.0, 1e-15));
    let none = x.cross_entropy(&Tensor::new([-100i64, -100]), &options);
    assert!(none.item::<f64>().is_nan());
    assert_eq!(grad(&none, &[&x])[0].tensor().to_vec::<f64>(), [0.0; 6]);
}

#[test]
fn a_class_out_of_range_is_an_index_error() {
    let x = Var::leaf(Tensor::zeros([2, 3]));
    let error = catch(|| x.cross_entropy(&Tensor::new([0i64, 3]), &CrossEntropy::default())).unwrap_err();
    assert!(matches!(error, Error::Index { .. }));
    let want = "cross_entropy: target 3 at [1] is outside of the classes 0..3 and is not ignore_index -100";
    assert_eq!(error.to_string(), want);
}
