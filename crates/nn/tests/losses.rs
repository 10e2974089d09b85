//! Losses where golden values do not reach: extremes, autocast, second derivatives.

use ferrograd_autograd::{Reduction, Var, autocast, gradcheck, gradgradcheck};
use ferrograd_nn::losses::*;
use ferrograd_tensor::{DType, Tensor};

#[test]
fn binary_cross_entropy_at_the_extremes() {
    let y = Tensor::new([1.0, 0.0, 1.0, 0.0f32]);
    let x = Var::leaf(Tensor::new([0.0, 1.0, 1.0, 0.0f32]));
    let loss = BceLoss { reduction: Reduction::None, ..BceLoss::default() }.loss(&x, &y);
    assert_eq!(loss.tensor().to_vec::<f32>(), [100.0, 100.0, 0.0, 0.0]);
    assert!(loss.sum().backward().wrt(&x).is_finite().all().item::<bool>());

    let x = Var::leaf(Tensor::new([-1000.0, 1000.0, 0.0, 0.0f32]));
    let loss = BceWithLogitsLoss { reduction: Reduction::None, ..BceWithLogitsLoss::default() }.loss(&x, &y);
    let near = |got: &Tensor, expected: [f32; 4]| got.all_close(&Tensor::new(expected), 1e-6, 1e-6);
    let ln2 = std::f32::consts::LN_2;
    assert!(near(loss.tensor(), [1000.0, 1000.0, ln2, ln2]), "{loss}");
    // σ(x) − y, at 0 too.
    assert!(near(loss.sum().backward().wrt(&x), [-1.0, 1.0, -0.5, 0.5]));
}

#[test]
fn both_binary_cross_entropies_agree() {
    let x = Var::constant(Tensor::new([-2.0, 0.3, 1.7f64]));
    let y = Tensor::new([0i64, 1, 1]);
    let (a, b) = (bce(&x.sigmoid(), &y).item::<f64>(), bce_with_logits(&x, &y).item::<f64>());
    assert!((a - b).abs() < 1e-12, "{a} {b}");
}

#[test]
fn small_cases_by_hand() {
    let x = Var::constant(Tensor::new([0.5, -2.0, 3.0f64]));
    let y = Tensor::new([1.0, 1.0, -1.0]);
    assert!((hinge(&x, &y).item::<f64>() - (0.5 + 3.0 + 4.0) / 3.0).abs() < 1e-12);
    let squared = HingeLoss { squared: true, reduction: Reduction::Sum }.loss(&x, &y).item::<f64>();
    assert!((squared - (0.25 + 9.0 + 16.0)).abs() < 1e-12);
    // A target of probability 0 costs nothing.
    let log_p = Var::constant(Tensor::new([[0.5f64.ln(), 0.5f64.ln()]]));
    let kl = KlDivLoss { reduction: KlReduction::BatchMean, ..KlDivLoss::default() };
    let q = Var::leaf(Tensor::new([[0.0, 1.0]]));
    let loss = kl.loss(&log_p, &q);
    assert!((loss.item::<f64>() - std::f64::consts::LN_2).abs() < 1e-12);
    assert!(loss.backward().wrt(&q).is_finite().all().item::<bool>());
    // The cosine of a zero vector is 0, and so is its derivative by that vector's length.
    let zero = Var::leaf(Tensor::new([0.0, 0.0]));
    let cosine = cosine_similarity(&zero, &Var::constant(Tensor::new([1.0, 2.0])), 0, 1e-8);
    assert_eq!(cosine.item::<f64>(), 0.0);
    assert!(cosine.backward().wrt(&zero).is_finite().all().item::<bool>());
    let swap = TripletMarginLoss { swap: true, ..TripletMarginLoss::default() };
    let row = |v: [f64; 2]| Var::constant(Tensor::new([v]));
    let loss = swap.loss(&row([0.0, 0.0]), &row([2.0, 0.0]), &row([2.0, 1.0])).item::<f64>();
    assert!((loss - (2.0 - 1.0 + 1.0)).abs() < 1e-5, "{loss}");
    // nll of log-softmax is cross-entropy.
    let logits = Var::constant(Tensor::new([[1.0, 2.0, 0.5], [0.1, -0.3, 0.9]]));
    let classes = Tensor::new([2i64, -100]);
    let (a, b) = (nll(&logits.log_softmax(1), &classes), cross_entropy(&logits, &classes));
    assert!((a.item::<f64>() - b.item::<f64>()).abs() < 1e-12);
    // An ignored row counts for nothing, whatever it holds.
    let impossible = Var::leaf(Tensor::new([[f64::NEG_INFINITY, 0.0], [-0.7, -0.7]]));
    let loss = nll(&impossible, Tensor::new([-100i64, 1]));
    assert!((loss.item::<f64>() - 0.7).abs() < 1e-12, "{loss}");
    assert_eq!(loss.backward().wrt(&impossible).to_vec::<f64>(), [0.0, 0.0, 0.0, -1.0]);
    let soft = cross_entropy_probs(&logits, Tensor::new([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]));
    assert!(soft.item::<f64>().is_finite());
}

#[test]
fn losses_compute_in_f32_under_autocast() {
    let x = Var::leaf(Tensor::new([1.0f32, 2.0]).to_dtype(DType::BF16));
    let y = Tensor::new([1.001f32, 2.0]);
    let loss = autocast(DType::BF16, || mse(&x, &y));
    assert_eq!(loss.dtype(), DType::F32);
    assert!((loss.item::<f64>() - 5e-7).abs() < 1e-9, "{loss}");
    assert_eq!(loss.backward().wrt(&x).dtype(), DType::BF16);
}

#[test]
fn second_derivatives() {
    let x = Tensor::new([[0.3, 0.7, 0.2], [0.6, 0.4, 0.9]]);
    let y = Tensor::new([[0.9, 0.1, 0.4], [0.2, 0.8, 0.5]]);
    let both = [x.clone(), y.clone()];
    type Loss = fn(&[Var]) -> Var;
    let losses: [(&str, Loss); 6] = [
        ("mse", |v| mse(&v[0], &v[1])),
        ("bce", |v| bce(&v[0], &v[1])),
        ("bce_with_logits", |v| bce_with_logits(&v[0], &v[1])),
        ("kl_div", |v| kl_div(&v[0], &v[1])),
        ("huber", |v| huber(&v[0], &v[1])),
        ("cosine_similarity", |v| cosine_similarity(&v[0], &v[1], 1, 1e-8)),
    ];
    for (name, f) in losses {
        gradcheck(f, &both).unwrap_or_else(|e| panic!("{name}: {e}"));
        gradgradcheck(f, &both).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let triplet = [x, y, Tensor::new([[0.5, 0.6, 0.1], [0.3, 0.2, 0.7]])];
    gradcheck(|v| triplet_margin(&v[0], &v[1], &v[2]), &triplet).unwrap();
    gradgradcheck(|v| triplet_margin(&v[0], &v[1], &v[2]), &triplet).unwrap();
}
