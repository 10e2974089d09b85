//! Elementwise operations: every layout, dtype and shape against plain f64 mathematics.

#[path = "../../../golden/reader.rs"]
mod golden;
mod strided;

use ferrograd_tensor::{DType, Error, Tensor, catch};
use golden::Golden;
use proptest::prelude::*;
use std::f64::consts::PI;
use strided::{shapes, strided, tensors};

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

type Op = fn(&Tensor) -> Tensor;
type Plain = fn(f64) -> f64;
type Two = fn(&Tensor, &Tensor) -> Tensor;
type PlainTwo = fn(f64, f64) -> f64;
type WithNumber = fn(&Tensor, f64) -> Tensor;
type Relation = fn(&f64, &f64) -> bool;

/// By its Taylor series, whose terms stay below 30 for |x| ≤ 2.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..60 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    sum * 2.0 / PI.sqrt()
}
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Name, operation, formula, and whether the domain is x > 0.
const UNARY: [(&str, Op, Plain, bool); 34] = [
    ("neg", |x| -x, |x| -x, false),
    ("abs", Tensor::abs, f64::abs, false),
    ("sign", Tensor::sign, |x| if x == 0.0 { 0.0 } else { x.signum() }, false),
    ("square", Tensor::square, |x| x * x, false),
    ("sqrt", Tensor::sqrt, f64::sqrt, true),
    ("rsqrt", Tensor::rsqrt, |x| 1.0 / x.sqrt(), true),
    ("recip", Tensor::recip, |x| 1.0 / x, true),
    ("exp", Tensor::exp, f64::exp, false),
    ("expm1", Tensor::expm1, f64::exp_m1, false),
    ("log", Tensor::log, f64::ln, true),
    ("log1p", Tensor::log1p, f64::ln_1p, true),
    ("sin", Tensor::sin, f64::sin, false),
    ("cos", Tensor::cos, f64::cos, false),
    ("tanh", Tensor::tanh, f64::tanh, false),
    ("sigmoid", Tensor::sigmoid, sigmoid, false),
    ("erf", Tensor::erf, erf, false),
    ("relu", Tensor::relu, |x| x.max(0.0), false),
    ("gelu", Tensor::gelu, |x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt())), false),
    (
        "gelu_tanh",
        Tensor::gelu_tanh,
        |x| 0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()),
        false,
    ),
    ("silu", Tensor::silu, |x| x * sigmoid(x), false),
    ("softplus", Tensor::softplus, |x| x.exp().ln_1p(), false),
    ("elu", |x| x.elu(0.7), |x| if x > 0.0 { x } else { 0.7 * x.exp_m1() }, false),
    ("leaky_relu", |x| x.leaky_relu(0.2), |x| if x > 0.0 { x } else { 0.2 * x }, false),
    ("clamp", |x| x.clamp(-0.5, 1.25), |x| x.clamp(-0.5, 1.25), false),
    ("powi", |x| x.powi(3), |x| x.powi(3), false),
    ("powi negative", |x| x.powi(-2), |x| x.powi(-2), true),
    ("powf", |x| x.powf(1.7), |x| x.powf(1.7), true),
    ("floor", Tensor::floor, f64::floor, false),
    ("ceil", Tensor::ceil, f64::ceil, false),
    ("round", Tensor::round, f64::round_ties_even, false),
    ("add_scalar", |x| x + 0.75, |x| x + 0.75, false),
    ("mul_scalar", |x| -1.5 * x, |x| -1.5 * x, false),
    ("div_scalar", |x| x / 1.25, |x| x / 1.25, false),
    ("scalar on the left", |x| 2.0 - x, |x| 2.0 - x, false),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn one_argument(shape in shapes(), seed: u64, kind in 0u8..16) {
        for dtype in FLOATS {
            let any = strided(&shape, dtype, seed, kind);
            let positive = any.abs() + 0.125;
            // The kernels are good to a few roundings of the type they compute in, of the result or of a term of order 1
            // that it is the difference of (gelu, expm1); the half types round f32's result once.
            let eps = 8.0 * if dtype.is_half() { dtype.epsilon() / 8.0 } else { dtype.epsilon() };
            for (name, op, formula, needs_positive) in UNARY {
                let x = if needs_positive { &positive } else { &any };
                let y = op(x);
                prop_assert_eq!((y.shape(), y.dtype()), (x.shape(), dtype));
                for (x, y) in x.to_f64_vec().into_iter().zip(y.to_f64_vec()) {
                    let want = formula(x);
                    prop_assert!((y - want).abs() <= eps * (want.abs() + 1.0), "{} {}({}): {} ≠ {}", dtype, name, x, y, want);
                }
            }
        }
    }

    #[test]
    fn two_arguments_broadcast(shape in shapes(), seed: u64, kinds in (0u8..16, 0u8..16), ones in any::<u8>()) {
        // Each operand has extent 1 where its bit says so (never both), and b may lack the first dimension.
        let cut = |bits: u8| -> Vec<usize> {
            shape.iter().enumerate().map(|(d, &n)| if (bits >> d) & 1 == 1 { 1 } else { n }).collect()
        };
        let (shape_a, shape_b) = (cut(ones), cut((ones >> 4) & !ones));
        let b_shape = &shape_b[(seed % 2) as usize * shape.len().min(1)..];
        for dtype in FLOATS {
            let a = strided(&shape_a, dtype, seed, kinds.0);
            let b = strided(b_shape, dtype, seed ^ 1, kinds.1);
            let expanded = a.shape().broadcast(b.shape(), "test");
            let (wide_a, wide_b) = (a.expand(&expanded).to_f64_vec(), b.expand(&expanded).to_f64_vec());
            let ops: [(&str, Two, PlainTwo); 8] = [
                ("add", |a, b| a + b, |a, b| a + b),
                ("sub", |a, b| a - b, |a, b| a - b),
                ("mul", |a, b| a * b, |a, b| a * b),
                ("div", |a, b| a / b, |a, b| a / b),
                ("maximum", Tensor::maximum, f64::max),
                ("minimum", Tensor::minimum, f64::min),
                ("atan2", Tensor::atan2, f64::atan2),
                ("pow", |a, b| (a.abs() + 0.5).pow(b), |a, b| (a.abs() + 0.5).powf(b)),
            ];
            for (name, op, formula) in ops {
                let y = op(&a, &b);
                prop_assert_eq!(y.shape(), &expanded);
                // One rounding of the result, and for pow one of its base, which the exponent (≤ 2) multiplies.
                let eps = 2.0 * dtype.epsilon();
                for ((&a, &b), y) in wide_a.iter().zip(&wide_b).zip(y.to_f64_vec()) {
                    let want = formula(a, b);
                    let infinite = want.abs() > 6e4 && dtype == DType::F16;
                    prop_assert!(infinite || (y - want).abs() <= eps * (want.abs() + 1e-4), "{} {}({}, {}): {} ≠ {}", dtype, name, a, b, y, want);
                }
            }
        }
    }

    #[test]
    fn choices(x in tensors(), seed: u64, kind in 0u8..16) {
        let y = strided(x.dims(), DType::F64, seed, kind);
        let mask = x.gt(&y);
        let pairs: Vec<(f64, f64)> = x.to_f64_vec().into_iter().zip(y.to_f64_vec()).collect();
        let want: Vec<f64> = pairs.iter().map(|&(x, y)| if x > y { x } else { y }).collect();
        prop_assert_eq!(mask.where_(&x, &y).to_f64_vec(), want);
        let want: Vec<f64> = pairs.iter().map(|&(x, y)| if x > y { 3.5 } else { x }).collect();
        prop_assert_eq!(x.masked_fill(&mask, 3.5).to_f64_vec(), want);
    }
}

#[test]
fn integers() {
    let x = Tensor::new([-7i64, -1, 0, 3, 8]);
    assert_eq!((&x % 3.0).to_vec::<i64>(), [2, 2, 0, 0, 2]);
    assert_eq!((Tensor::new([i64::MIN, 7]) % -1.0).to_vec::<i64>(), [0, 0]);
    assert_eq!((Tensor::new([i32::MIN, 7]) % Tensor::new([-1i32])).to_vec::<i32>(), [0, 0]);
    assert_eq!((&x * 2.0 - 1.0).to_vec::<i64>(), [-15, -3, -1, 5, 15]);
    assert_eq!((&x * 0.5).to_vec::<f32>(), [-3.5, -0.5, 0.0, 1.5, 4.0]);
    assert_eq!((&x / &Tensor::new([2i64])).dtype(), DType::F32);
    assert_eq!(x.sqrt().dtype(), DType::F32);
    assert_eq!(x.sign().to_vec::<i64>(), [-1, -1, 0, 1, 1]);
    assert_eq!(x.clamp(-2.0, 3.0).to_vec::<i64>(), [-2, -1, 0, 3, 3]);
    assert_eq!(x.clamp(-2.5, 3.0).to_vec::<f32>(), [-2.5, -1.0, 0.0, 3.0, 3.0]);
    assert_eq!(Tensor::new([0u8, 9, 255]).clamp(-3.0, 300.0).to_vec::<u8>(), [0, 9, 255]);
    assert_eq!((Tensor::new([true]) + Tensor::new([2i32])).to_vec::<i32>(), [3]);
}

/// A plain number is not rounded to a half type, which may be unable to hold it.
#[test]
fn numbers_beyond_the_half_types() {
    for dtype in [DType::F16, DType::BF16] {
        let x = Tensor::new([1.0f32, -3.0, 6.0]).to_dtype(dtype);
        for s in [65536.0, 1e-3, 3.1] {
            let want: Vec<f32> = x.to_f64_vec().iter().map(|&x| x as f32 / s as f32).collect();
            let want = Tensor::new(&want).to_dtype(dtype);
            assert_eq!((&x / s).to_f64_vec(), want.to_f64_vec(), "{dtype} / {s}");
        }
        assert_eq!((&x / 65536.0).to_f64_vec(), [1.0, -3.0, 6.0].map(|x| x / 65536.0));
    }
    let x = Tensor::new([1.0f64, 7.0]);
    assert_eq!((&x / 3.0).to_vec::<f64>(), [1.0 / 3.0, 7.0 / 3.0]);
    assert_eq!((&x.to_dtype(DType::F32) / 49.0).to_vec::<f32>(), [1.0 / 49.0, 7.0 / 49.0]);
    assert_eq!((Tensor::new([3i64]) / 2.0).to_vec::<f32>(), [1.5]);
}

#[test]
fn special_values() {
    let x = Tensor::new([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0]);
    let same = |y: Tensor, want: [f64; 4]| {
        for (y, w) in y.to_vec::<f64>().iter().zip(want) {
            assert!(y.is_nan() && w.is_nan() || y.to_bits() == w.to_bits(), "{y} ≠ {w}");
        }
    };
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    same(x.relu(), [nan, inf, 0.0, -0.0]);
    same(x.clamp(-1.0, 1.0), [nan, 1.0, -1.0, -0.0]);
    same(x.sign(), [nan, 1.0, -1.0, -0.0]);
    same(-&x, [nan, -inf, inf, 0.0]);
    same(x.sigmoid(), [nan, 1.0, 0.0, 0.5]);
    same(x.maximum(&Tensor::new([0.0, nan, 1.0, 2.0])), [nan, nan, 1.0, 2.0]);
    same(Tensor::new([0.0, nan, 1.0, 2.0]).minimum(&x), [nan, nan, -inf, -0.0]);
}

/// Every number of the half types, and f32 numbers about their ties.
#[test]
fn half_types_widen_exactly_and_round_once() {
    use half::{bf16, f16};
    let bits: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let wide = |dtype| Tensor::from_bytes(&bits, 1 << 16, dtype).to_dtype(DType::F32).to_vec::<f32>();
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    assert!(wide(DType::F16).iter().enumerate().all(|(i, &y)| same(y, f16::from_bits(i as u16).to_f32())));
    assert!(wide(DType::BF16).iter().enumerate().all(|(i, &y)| same(y, bf16::from_bits(i as u16).to_f32())));

    let mut x: Vec<f32> = (0..=u32::MAX).step_by(65_521).map(f32::from_bits).collect();
    let about = |half: u32| [half - 1, half, half + 1];
    x.extend((0..1000u32).flat_map(|i| about(0x8000).map(|low| f32::from_bits(0x3f80_0000 + (i << 16) + low))));
    x.extend((0..1000u32).flat_map(|i| about(0x1000).map(|low| f32::from_bits(0x3f80_0000 + (i << 13) + low))));
    x.extend([f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7f80_0001), f32::NAN, 1e-45, 65519.0]);
    let narrow = |dtype| Tensor::new(&x).to_dtype(dtype).to_dtype(DType::F32).to_vec::<f32>();
    assert!(x.iter().zip(narrow(DType::F16)).all(|(&x, y)| same(y, f16::from_f32(x).to_f32())));
    assert!(x.iter().zip(narrow(DType::BF16)).all(|(&x, y)| same(y, bf16::from_f32(x).to_f32())));
}

#[test]
fn casts_saturate_from_floats_and_wrap_between_integers() {
    let x = Tensor::new([-1.0f64, 300.7, 3e9, -1e20, 1e20, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 2.9]);
    assert_eq!(x.to_dtype(DType::U8).to_vec::<u8>(), [0, 255, 255, 0, 255, 0, 255, 0, 2]);
    assert_eq!(x.to_dtype(DType::I8).to_vec::<i8>(), [-1, 127, 127, -128, 127, 0, 127, -128, 2]);
    let (low, high) = (i32::MIN, i32::MAX);
    assert_eq!(x.to_dtype(DType::I32).to_vec::<i32>(), [-1, 300, high, low, high, 0, high, low, 2]);
    let (low, high) = (i64::MIN, i64::MAX);
    assert_eq!(x.to_dtype(DType::I64).to_vec::<i64>(), [-1, 300, 3_000_000_000, low, high, 0, high, low, 2]);
    for half in [DType::F16, DType::BF16] {
        assert_eq!(Tensor::new([-1.0f32, 300.0, 9.5]).to_dtype(half).to_dtype(DType::U8).to_vec::<u8>(), [0, 255, 9]);
    }
    let x = Tensor::new([-1i64, 300, 1 << 32, 7]);
    assert_eq!(x.to_dtype(DType::U8).to_vec::<u8>(), [255, 44, 0, 7]);
    assert_eq!(x.to_dtype(DType::I8).to_vec::<i8>(), [-1, 44, 0, 7]);
    assert_eq!(x.to_dtype(DType::I32).to_vec::<i32>(), [-1, 300, 0, 7]);
    assert_eq!(Tensor::full_on([1], 300.0, DType::U8, &x.device()).to_vec::<u8>(), [255]);
}

/// A sum, difference or product with a number that u8 lacks is right modulo 2⁸; a comparison or a remainder is right.
#[test]
fn numbers_beyond_the_integer_types() {
    let x = Tensor::new([200u8, 3]);
    assert_eq!((&x - 1.0).to_vec::<u8>(), [199, 2]);
    assert_eq!((&x + 300.0).to_vec::<u8>(), [244, 47]);
    assert_eq!((1.0 - &x).to_vec::<u8>(), [57, 254]);
    assert_eq!((&x * -1.0).to_vec::<u8>(), [56, 253]);
    assert_eq!((&x % 300.0).to_vec::<i64>(), [200, 3]);
    assert_eq!((&x % -7.0).to_vec::<i64>(), [-3, -4]);
    assert_eq!((300.0 % &x).to_vec::<i64>(), [100, 0]);
    assert_eq!((&x % 7.0).to_vec::<u8>(), [4, 3]);
    assert_eq!((&x % 2.5).to_vec::<f32>(), [0.0, 0.5]);
    assert_eq!((Tensor::new([5i32]) % 3e9).to_vec::<i64>(), [5]);
    let y = Tensor::new([-100i8, 3, -128]);
    assert_eq!((&y % 300.0).to_vec::<i64>(), [200, 3, 172]);
    assert_eq!((&y + 200.0).to_vec::<i8>(), [100, -53, 72]);
    assert_eq!((y.abs().to_vec::<i8>(), y.sign().to_vec::<i8>()), (vec![100, 3, -128], vec![-1, 1, -1]));
    assert_eq!((&y + Tensor::new([200u8])).to_vec::<i32>(), [100, 203, 72]);
    assert_eq!(
        catch(|| &x % 1e30).unwrap_err().to_string(),
        "rem: 1000000000000000000000000000000 lies outside of the integers that i64 holds"
    );
    assert_eq!(catch(|| &x % 0.0).unwrap_err().to_string(), "rem: integer remainder by zero");

    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let numbers = [-inf, -1e30, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 255.0, 256.0, 300.5, 1e30, inf, nan];
    for dtype in [DType::Bool, DType::U8, DType::I8, DType::I32, DType::I64] {
        let x = Tensor::new([0i64, 1, 2, 200]).to_dtype(dtype);
        let ops: [(&str, WithNumber, Relation); 6] = [
            ("eq", Tensor::eq_scalar, f64::eq),
            ("ne", Tensor::ne_scalar, f64::ne),
            ("lt", Tensor::lt_scalar, f64::lt),
            ("le", Tensor::le_scalar, f64::le),
            ("gt", Tensor::gt_scalar, f64::gt),
            ("ge", Tensor::ge_scalar, f64::ge),
        ];
        for (name, op, plain) in ops {
            for s in numbers {
                let want: Vec<bool> = x.to_f64_vec().iter().map(|x| plain(x, &s)).collect();
                assert_eq!(op(&x, s).to_vec::<bool>(), want, "{dtype} {name} {s}");
            }
        }
    }
    // Neighbours that f32, and that f64, cannot tell apart.
    let x = Tensor::new([16_777_216i64, 16_777_217, i64::MAX]);
    assert_eq!(x.gt_scalar(16_777_216.5).to_vec::<bool>(), [false, true, true]);
    assert_eq!(x.lt_scalar(2f64.powi(63)).to_vec::<bool>(), [true; 3]);
    assert_eq!(Tensor::new([i64::MIN]).ge_scalar(-(2f64.powi(63))).to_vec::<bool>(), [true]);
}

#[test]
fn sums_in_place() {
    let mut x = Tensor::new([1.0f32, 2.0]);
    x.add_assign(&Tensor::new([0.5f64]));
    x.add_assign(&Tensor::new([1i64, 2]));
    x.add_assign(&Tensor::new([true, false]));
    assert_eq!(x.to_vec::<f32>(), [3.5, 4.5]);
    let mut n = Tensor::new([250u8, 1]);
    n.add_assign(&Tensor::new([10i64]));
    assert_eq!(n.to_vec::<u8>(), [4, 11]);
    assert_eq!(
        catch(|| n.clone().add_assign(&x)).unwrap_err().to_string(),
        "add_assign: u8 cannot hold the sum with f32 (cast either with to_dtype)"
    );
    let mut flags = Tensor::new([true]);
    assert_eq!(
        catch(move || flags.add_assign(&Tensor::new([true]))).unwrap_err().to_string(),
        "add_assign: not defined for bool (cast with to_dtype)"
    );
}

#[test]
fn closeness() {
    let close = |a: f64, b: f64| Tensor::scalar(a).all_close(&Tensor::scalar(b), 1e-3, 1e-6);
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    assert!(close(1.0, 1.0005) && close(0.0, 1e-7) && !close(1.0, 1.01));
    assert!(close(inf, inf) && close(-inf, -inf) && !close(inf, -inf));
    assert!(!close(1.0, inf) && !close(1.0, -inf) && !close(inf, 1.0));
    assert!(!close(nan, nan) && !close(nan, 1.0) && !close(1.0, nan) && !close(nan, inf));
    assert!(!Tensor::zeros([2]).all_close(&Tensor::zeros([1]), 1.0, 1.0));
}

#[test]
fn mistakes() {
    let message = |f: &dyn Fn() -> Tensor| catch(f).unwrap_err();
    let (a, b) = (Tensor::zeros([2, 3]), Tensor::zeros([4, 3]));
    let error = message(&|| &a + &b);
    assert!(matches!(error, Error::Shape { op: "add", .. }));
    assert_eq!(
        error.to_string(),
        "add: shapes do not broadcast: [2, 3] with [4, 3] (dimension -2: 2 ≠ 4, and neither is 1)"
    );
    let yes = Tensor::new([true]);
    assert_eq!(
        message(&|| &yes + &yes).to_string(),
        "add: not defined for bool and bool (use logical_and, logical_or, logical_not, or cast with to_dtype)"
    );
    assert_eq!(message(&|| -&yes).to_string(), "neg: not defined for bool (cast with to_dtype)");
    assert_eq!(message(&|| &yes * 2.0).to_string(), "mul_scalar: not defined for bool (cast with to_dtype)");
    assert_eq!(message(&|| a.clamp(2.0, 1.0)).to_string(), "clamp: low 2 must not exceed high 1");
    assert_eq!(message(&|| Tensor::new([1i64]) % Tensor::new([0i64])).to_string(), "rem: integer remainder by zero");
    assert_eq!(message(&|| a.where_(&a, &a)).to_string(), "where: the condition must be bool, got f32");
    assert_eq!(message(&|| a.masked_fill(&a, 0.0)).to_string(), "masked_fill: the mask must be bool, got f32");
    assert_eq!(
        message(&|| yes.expand([2]).masked_fill(&Tensor::new([[true], [false]]), 1.0)).to_string(),
        "masked_fill: [2, 1] does not expand to [2]: fewer dimensions"
    );
}

#[test]
fn golden_values() {
    let ops = Golden::open("ops");
    let cases: [(&str, Op); 22] = [
        ("gelu_exact", Tensor::gelu),
        ("gelu_tanh", Tensor::gelu_tanh),
        ("silu", Tensor::silu),
        ("softplus", Tensor::softplus),
        ("elu_alpha", |x| x.elu(0.7)),
        ("leaky_relu_slope", |x| x.leaky_relu(0.2)),
        ("relu", Tensor::relu),
        ("sigmoid", Tensor::sigmoid),
        ("tanh", Tensor::tanh),
        ("erf", Tensor::erf),
        ("expm1_small", Tensor::expm1),
        ("log1p_small", Tensor::log1p),
        ("exp", Tensor::exp),
        ("log", Tensor::log),
        ("sqrt", Tensor::sqrt),
        ("rsqrt", Tensor::rsqrt),
        ("sin", Tensor::sin),
        ("cos", Tensor::cos),
        ("abs", Tensor::abs),
        ("clamp", |x| x.clamp(-0.8, 1.1)),
        ("pow_scalar", |x| x.powf(2.7)),
        ("pow_negative_base", |x| x.powf(3.0)),
    ];
    for (case, op) in cases {
        let (x, want) =
            (ops.expect(case, "input.input").to_vec::<f64>(), ops.expect(case, "output.out").to_vec::<f64>());
        let y = op(&ops.expect(case, "input.input")).to_vec::<f64>();
        for ((x, y), want) in x.iter().zip(y).zip(want) {
            // PyTorch's gelu adds 1 and erf, which cancel below 0: it is right to the rounding of 1 times x.
            let slack = if case.starts_with("gelu") { 1e-15 * x.abs() } else { 0.0 };
            assert!((y - want).abs() <= 1e-13 * want.abs() + slack, "{case}({x}) = {y}, not {want}");
        }
    }
}
