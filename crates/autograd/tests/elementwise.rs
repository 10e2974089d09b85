//! Derivatives of the elementwise operations: first and second order against finite differences, and PyTorch's values.

#[path = "../../../golden/reader.rs"]
mod golden;

use ferrograd_autograd::{GradOptions, Var, grad, grad_with, gradcheck, gradgradcheck};
use ferrograd_tensor::{DType, Tensor, catch, random::with_seed};
use golden::Golden;

type Op = fn(&Var) -> Var;

/// Inputs on both sides of 0, away from every kink, and the same above 0.
fn inputs() -> (Tensor, Tensor) {
    let any = Tensor::new([[-2.3, -0.7, -0.1], [0.2, 0.9, 1.7]]);
    (any.clone(), any.abs() + 0.3)
}

const UNARY: [(&str, Op, bool); 31] = [
    ("neg", |x| -x, false),
    ("abs", Var::abs, false),
    ("square", Var::square, false),
    ("sqrt", Var::sqrt, true),
    ("rsqrt", Var::rsqrt, true),
    ("recip", Var::recip, true),
    ("exp", Var::exp, false),
    ("expm1", Var::expm1, false),
    ("log", Var::log, true),
    ("log1p", Var::log1p, true),
    ("sin", Var::sin, false),
    ("cos", Var::cos, false),
    ("tanh", Var::tanh, false),
    ("sigmoid", Var::sigmoid, false),
    ("erf", Var::erf, false),
    ("relu", Var::relu, false),
    ("gelu", Var::gelu, false),
    ("gelu_tanh", Var::gelu_tanh, false),
    ("silu", Var::silu, false),
    ("softplus", Var::softplus, false),
    ("elu", |x| x.elu(0.7), false),
    ("elu with a negative slope", |x| x.elu(-0.7), false),
    ("leaky_relu", |x| x.leaky_relu(0.2), false),
    ("clamp", |x| x.clamp(-0.5, 1.25), false),
    ("powi", |x| x.powi(3), false),
    ("powi negative", |x| x.powi(-2), false),
    ("powf", |x| x.powf(1.7), true),
    ("scalars", |x| 3.0 - (x * 2.0 + 1.0) / 4.0, false),
    ("rdiv_scalar", |x| 2.0 / x, true),
    ("masked_fill", |x| x.masked_fill(&Tensor::new([true, false, true]), 7.0).square(), false),
    ("dropout", |x| with_seed(3, || x.square().dropout(0.4)), false),
];

#[test]
fn one_argument_to_second_order() {
    let (any, positive) = inputs();
    for (name, op, needs_positive) in UNARY {
        let x = if needs_positive { &positive } else { &any };
        gradcheck(|x| op(&x[0]), std::slice::from_ref(x)).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Through a square, so that the second derivative is not identically 0 for the linear ones.
        gradgradcheck(|x| op(&x[0].square()) + op(&x[0]).square(), std::slice::from_ref(&positive))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        gradgradcheck(|x| op(&x[0]), std::slice::from_ref(x)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn two_arguments_to_second_order() {
    let a = Tensor::new([[[0.4, 1.3, 2.2]], [[0.7, -1.1, 0.25]]]);
    let b = Tensor::new([[1.5], [-0.6]]);
    type Two = fn(&Var, &Var) -> Var;
    let ops: [(&str, Two); 9] = [
        ("add", |a, b| a + b),
        ("sub", |a, b| a - b),
        ("mul", |a, b| a * b),
        ("div", |a, b| a / b),
        ("pow", |a, b| a.square().pow(b)),
        ("maximum", Var::maximum),
        ("minimum", Var::minimum),
        ("atan2", Var::atan2),
        ("rem", Var::rem),
    ];
    for (name, op) in ops {
        for inputs in [[a.clone(), b.clone()], [b.clone(), &a * 1.01]] {
            gradcheck(|x| op(&x[0], &x[1]), &inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
            gradgradcheck(|x| op(&x[0], &x[1]), &inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
    let condition = Tensor::new([[true, false, true], [false, true, false]]);
    let choose = |x: &[Var]| Var::where_(&condition, &x[0].square(), &x[1].exp());
    gradcheck(choose, &[a.clone(), b.clone()]).unwrap();
    gradgradcheck(choose, &[a, b]).unwrap();
}

/// The derivative of `op` at the points.
fn slope(op: impl Fn(&Var) -> Var, at: &[f64]) -> Vec<f64> {
    let x = Var::leaf(Tensor::new(at));
    op(&x).sum().backward().wrt(&x).to_vec()
}

#[test]
fn at_kinks_and_ends() {
    assert_eq!(slope(Var::abs, &[-2.0, 0.0, 3.0]), [-1.0, 0.0, 1.0]);
    assert_eq!(slope(Var::relu, &[-2.0, 0.0, 3.0]), [0.0, 0.0, 1.0]);
    assert_eq!(slope(|x| x.clamp(-1.0, 1.0), &[-1.5, -1.0, 0.0, 1.0, 1.5]), [0.0, 1.0, 1.0, 1.0, 0.0]);
    for op in [Var::floor, Var::ceil, Var::round, Var::sign] as [Op; 4] {
        assert_eq!(slope(op, &[-1.5, 0.0, 2.2]), [0.0; 3]);
        gradgradcheck(|x| op(&x[0]) * &x[0], &[Tensor::new([0.3, -1.2])]).unwrap();
    }
    assert_eq!(slope(|x| x.powf(0.0) + x.powi(0), &[0.0, -1.0]), [0.0, 0.0]);
    assert_eq!(slope(|x| x.powf(2.0) + x.powi(2), &[0.0, -1.0]), [0.0, -4.0]);

    let (a, b) = (Var::leaf(Tensor::new([1.0, 2.0, 5.0])), Var::leaf(Tensor::new([2.0, 2.0, 3.0])));
    for (op, want) in [(Var::maximum as fn(&Var, &Var) -> Var, [0.0, 0.5, 1.0]), (Var::minimum, [1.0, 0.5, 0.0])] {
        let grads = op(&a, &b).sum().backward();
        assert_eq!(grads.wrt(&a).to_vec::<f64>(), want);
        assert_eq!(grads.wrt(&b).to_vec::<f64>(), want.map(|w| 1.0 - w));
    }
    // 0⁰, 0¹ and 0² by base and exponent, to second order without a NaN.
    let (a, b) = (Var::leaf(Tensor::new([0.0, 0.0, 0.0])), Var::leaf(Tensor::new([0.0, 1.0, 2.0])));
    let first = grad_with(&[&a.pow(&b).sum()], &[&a, &b], GradOptions::create_graph());
    assert_eq!(first[0].tensor().to_vec::<f64>(), [0.0, 1.0, 0.0]);
    assert_eq!(first[1].tensor().to_vec::<f64>(), [0.0; 3]);
    let second = grad(&first[0].narrow(0, 2, 1).sum(), &[&a]);
    assert_eq!(second[0].tensor().to_vec::<f64>(), [0.0, 0.0, 2.0]);
    // Far from 0 nothing overflows into a NaN.
    let x = Var::leaf(Tensor::new([-1000.0, 1000.0]));
    for op in [Var::sigmoid, Var::tanh, Var::gelu, Var::gelu_tanh, Var::silu, Var::softplus, |x| x.elu(1.0)] as [Op; 7]
    {
        let first = grad_with(&[&op(&x).sum()], &[&x], GradOptions::create_graph());
        let second = grad(&first[0].sum(), &[&x]);
        assert!(
            first[0].tensor().is_finite().all().item::<bool>() && second[0].tensor().is_finite().all().item::<bool>()
        );
    }
}

/// The fused derivative kernels of every dtype against the rule that second derivatives go through.
#[test]
fn fused_kernels_agree_with_the_formulas() {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        let x = Var::leaf(Tensor::linspace(-4.0, 4.0, 41).to_dtype(dtype));
        for (name, op) in [
            ("relu", Var::relu as Op),
            ("sigmoid", Var::sigmoid),
            ("tanh", Var::tanh),
            ("gelu", Var::gelu),
            ("gelu_tanh", Var::gelu_tanh),
            ("silu", Var::silu),
        ] {
            let y = op(&x).sum();
            let fused = grad(&y, &[&x]).remove(0);
            let formula = grad_with(&[&y], &[&x], GradOptions::create_graph()).remove(0);
            // The formula rounds after each of its steps, about ten, on terms of order 1.
            let close = fused.tensor().all_close(formula.tensor(), 0.0, 10.0 * dtype.epsilon());
            assert!(close && fused.dtype() == dtype, "{name} {dtype}");
        }
    }
}

#[test]
fn dropout_scales_what_it_keeps() {
    let x = Var::leaf(Tensor::full([1000], 2.0));
    let (y, g) = with_seed(1, || {
        let y = x.dropout(0.75);
        (y.tensor().to_vec::<f32>(), y.sum().backward().wrt(&x).to_vec::<f32>())
    });
    assert!(y.iter().zip(&g).all(|(&y, &g)| (y == 8.0 && g == 4.0) || (y == 0.0 && g == 0.0)));
    let kept = y.iter().filter(|&&y| y > 0.0).count();
    assert!((200..300).contains(&kept), "{kept}");
    assert!(with_seed(1, || x.dropout(1.0)).tensor().to_vec::<f32>().iter().all(|&y| y == 0.0));
    assert!(x.dropout(0.0).tensor().shares_storage(x.tensor()));
    assert_eq!(catch(|| x.dropout(1.5)).unwrap_err().to_string(), "dropout: probability 1.5 is not in [0, 1]");
}

#[test]
fn mistakes() {
    let (a, b) = (Var::leaf(Tensor::zeros([2, 3])), Var::leaf(Tensor::zeros([4, 3])));
    let message = |f: &dyn Fn() -> Var| catch(f).unwrap_err().to_string();
    let shapes = "shapes do not broadcast: [2, 3] with [4, 3] (dimension -2: 2 ≠ 4, and neither is 1)";
    assert_eq!(message(&|| &a + &b), format!("add: {shapes}"));
    assert_eq!(message(&|| a.maximum(&b)), format!("maximum: {shapes}"));
    assert_eq!(message(&|| Var::where_(&Tensor::new([true]), &a, &b)), format!("where: {shapes}"));
    let yes = Var::constant(Tensor::new([true]));
    assert_eq!(message(&|| yes.neg()), "neg: not defined for bool (cast with to_dtype)");
    assert_eq!(message(&|| a.clamp(1.0, 0.0)), "clamp: low 1 must not exceed high 0");
    assert_eq!(message(&|| a.masked_fill(a.tensor(), 0.0)), "masked_fill: the mask must be bool, got f32");
}

#[test]
fn golden_values() {
    let ops = Golden::open("ops");
    let cases: [(&str, Op); 26] = [
        ("gelu_exact", Var::gelu),
        ("gelu_tanh", Var::gelu_tanh),
        ("silu", Var::silu),
        ("softplus", Var::softplus),
        ("elu", |x| x.elu(1.0)),
        ("elu_alpha", |x| x.elu(0.7)),
        ("leaky_relu", |x| x.leaky_relu(0.01)),
        ("leaky_relu_slope", |x| x.leaky_relu(0.2)),
        ("relu", Var::relu),
        ("sigmoid", Var::sigmoid),
        ("tanh", Var::tanh),
        ("erf", Var::erf),
        ("expm1", Var::expm1),
        ("expm1_small", Var::expm1),
        ("log1p", Var::log1p),
        ("log1p_small", Var::log1p),
        ("exp", Var::exp),
        ("log", Var::log),
        ("sqrt", Var::sqrt),
        ("rsqrt", Var::rsqrt),
        ("sin", Var::sin),
        ("cos", Var::cos),
        ("abs", Var::abs),
        ("clamp", |x| x.clamp(-0.8, 1.1)),
        ("pow_scalar", |x| x.powf(2.7)),
        ("pow_negative_base", |x| x.powf(3.0)),
    ];
    for (case, op) in cases {
        let x = Var::leaf(ops.expect(case, "input.input"));
        let y = op(&x);
        // PyTorch's gelu adds 1 and erf (or tanh), which cancel below 0: right to the rounding of 1 times x.
        let slack = if case.starts_with("gelu") { 1e-14 } else { 1e-300 };
        assert!(y.tensor().all_close(&ops.expect(case, "output.out"), 1e-13, slack), "{case}");
        let grads = y.backward_from(&ops.expect(case, "grad_output"));
        assert!(grads.wrt(&x).all_close(&ops.expect(case, "grad_input.input"), 1e-12, 1e-15), "{case}: gradient");
    }
    type Two = fn(&Var, &Var) -> Var;
    let cases: [(&str, &str, Two); 7] = [
        ("add_broadcast", "other", |a, b| a + b),
        ("sub_broadcast", "other", |a, b| a - b),
        ("mul_broadcast", "other", |a, b| a * b),
        ("div_broadcast", "other", |a, b| a / b),
        ("pow_broadcast", "exponent", Var::pow),
        ("maximum_broadcast", "other", Var::maximum),
        ("minimum_broadcast", "other", Var::minimum),
    ];
    let check = |case: &str, other: &str, op: &dyn Fn(&Var, &Var) -> Var| {
        let a = Var::leaf(ops.expect(case, "input.input"));
        let b = Var::leaf(ops.expect(case, &format!("input.{other}")));
        let y = op(&a, &b);
        assert!(y.tensor().all_close(&ops.expect(case, "output.out"), 1e-13, 1e-300), "{case}");
        let grads = y.backward_from(&ops.expect(case, "grad_output"));
        for (x, name) in [(&a, "input"), (&b, other)] {
            let want = ops.expect(case, &format!("grad_input.{name}"));
            assert!(grads.wrt(x).all_close(&want, 1e-12, 1e-14), "{case}: gradient of {name}");
        }
    };
    for (case, other, op) in cases {
        check(case, other, &op);
    }
    let condition = ops.expect("where_broadcast", "input.condition");
    check("where_broadcast", "other", &|a, b| Var::where_(&condition, a, b));
}
