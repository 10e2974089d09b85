//! Derivatives of reductions: against finite differences, to second order, and against PyTorch.

#[path = "../../../golden/reader.rs"]
mod golden;

use ferrograd_autograd::{Var, gradcheck, gradgradcheck};
use ferrograd_tensor::{DType, Tensor};
use golden::Golden;

/// Distinct numbers in ±2, none near 0.
fn sample(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let value = |i: usize| ((i * 7 + 3) % n) as f64 * (3.6 / n as f64) - 1.81;
    Tensor::from_vec((0..n).map(value).collect::<Vec<_>>(), shape)
}

#[track_caller]
fn both(f: impl Fn(&[Var]) -> Var, x: &Tensor) {
    gradcheck(&f, std::slice::from_ref(x)).unwrap();
    gradgradcheck(&f, std::slice::from_ref(x)).unwrap();
}

#[test]
fn first_and_second_derivatives() {
    let x = sample(&[2, 3, 4]);
    both(|x| x[0].mean_dims([0, 2]), &x);
    both(|x| x[0].max_keepdims(1), &x);
    both(|x| x[0].min(), &x);
    both(|x| x[0].prod_dims([1, 2]), &x);
    both(|x| x[0].var_dims([0, 1], 1), &x);
    both(|x| x[0].std_keepdims(-1, 0), &x);
    both(|x| x[0].logsumexp_dims([0, 2]), &x);
    both(|x| x[0].cumsum(1), &x);
    both(|x| x[0].sort(1, true).0, &x);
    both(|x| x[0].topk(2, -1, false).0, &x);
    both(|x| x[0].max_with_index(0).0, &x);
    for p in [0.0, 1.0, 1.5, 2.0, 3.0, -1.0, f64::INFINITY, f64::NEG_INFINITY] {
        both(|x| x[0].norm_dims(p, [0, 2]), &x);
    }
    // Any layout, and dimensions of extent 1.
    both(|x| x[0].permute([2, 0, 1]).var(), &x);
    both(|x| x[0].prod(), &sample(&[1, 5]).t());
}

#[test]
fn products_with_zeros() {
    for zeros in 0..4 {
        let mut values = vec![1.5, -0.7, 2.0, 0.3, -1.1];
        values[..zeros].fill(0.0);
        both(|x| x[0].prod_dims(1), &Tensor::from_vec(values, [1, 5]));
    }
    let x = Var::leaf(Tensor::new([2.0, 0.0, 3.0]));
    assert_eq!(x.prod().backward().wrt(&x).to_vec::<f64>(), [0.0, 6.0, 0.0]);
    let empty = Var::leaf(Tensor::zeros([2, 0]));
    assert_eq!(*empty.prod_dims(1).sum().backward().wrt(&empty).shape(), [2, 0]);
}

#[test]
fn ties_and_tips() {
    let x = Var::leaf(Tensor::new([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]));
    assert_eq!(x.max_dims(1).sum().backward().wrt(&x).to_vec::<f64>()[..3], [0.0, 0.5, 0.5]);
    assert_eq!(x.max_with_index(1).0.sum().backward().wrt(&x).to_vec::<f64>(), [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    let third = 1.0 / 3.0;
    assert_eq!(x.norm_dims(f64::INFINITY, 1).sum().backward().wrt(&x).to_vec::<f64>()[3..], [third; 3]);

    let zero = Var::leaf(Tensor::new([0.0, 0.0]));
    for p in [0.0, 1.0, 1.5, 2.0, 3.0, f64::INFINITY] {
        assert_eq!(zero.norm(p).backward().wrt(&zero).to_vec::<f64>(), [0.0; 2], "p = {p}");
    }
    assert_eq!(zero.std().backward().wrt(&zero).to_vec::<f64>(), [0.0; 2]);
    let x = Var::leaf(Tensor::new([3.0, 0.0, -4.0]));
    assert!(x.norm(2.0).backward().wrt(&x).all_close(&Tensor::new([0.6, 0.0, -0.8]), 1e-15, 0.0));

    let inf = f64::INFINITY;
    let x = Var::leaf(Tensor::new([[-inf, -inf], [-inf, 1.0]]));
    assert_eq!(x.logsumexp_dims(1).sum().backward().wrt(&x).to_vec::<f64>(), [0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn half_types_keep_their_dtype() {
    for dtype in [DType::F16, DType::BF16] {
        let x = Var::leaf(sample(&[2, 4]).to_dtype(dtype));
        let all: [fn(&Var) -> Var; 7] = [
            |x| x.mean(),
            |x| x.max(),
            |x| x.prod(),
            |x| x.var(),
            |x| x.norm(2.0),
            |x| x.logsumexp_dims(..),
            |x| x.cumsum(1).sum(),
        ];
        for f in all {
            let y = f(&x);
            assert_eq!((y.dtype(), y.backward().wrt(&x).dtype()), (dtype, dtype));
        }
    }
}

#[track_caller]
fn close(case: &str, what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.shape(), want.shape(), "{case}: shape of {what}");
    assert!(got.all_close(want, 1e-10, 1e-12), "{case}: {what} is\n{got}\nnot\n{want}");
}

#[test]
fn as_pytorch_does() {
    let golden = Golden::open("ops");
    let families = [
        "cumsum",
        "logsumexp",
        "sum",
        "mean",
        "amax",
        "amin",
        "var",
        "std",
        "norm",
        "prod",
        "sort",
        "topk",
        "max",
        "min",
    ];
    let mut checked = 0;
    for case in golden.cases() {
        let family = case.split_once('_').map_or(&case[..], |(f, _)| f).trim_end_matches(|c: char| c.is_ascii_digit());
        let family = family.strip_suffix("inf").unwrap_or(family);
        let skipped = ["max_pool", "maximum", "minimum"].iter().any(|s| case.starts_with(s));
        if !families.contains(&family) || skipped {
            continue;
        }
        let config = golden.config(&case);
        let x = Var::leaf(golden.expect(&case, "input.input"));
        let dims: Vec<isize> = match &config["dim"] {
            d if d.is_null() => (0..x.rank() as isize).collect(),
            d if d.is_array() => d.as_array().unwrap().iter().map(|d| d.as_i64().unwrap() as isize).collect(),
            d => vec![d.as_i64().unwrap() as isize],
        };
        let (d, keep) = (&dims[..], config["keepdim"] == true);
        let correction = config["correction"].as_u64().unwrap_or(1) as usize;
        let p = config["ord"].as_f64().unwrap_or(f64::INFINITY);
        let (mut y, mut indices) = (None, None);
        match (family, keep) {
            ("cumsum", _) => y = Some(x.cumsum(d[0])),
            ("logsumexp", true) => y = Some(x.logsumexp_keepdims(d)),
            ("logsumexp", false) => y = Some(x.logsumexp_dims(d)),
            ("sum", true) => y = Some(x.sum_keepdims(d)),
            ("sum", false) => y = Some(x.sum_dims(d)),
            ("mean", true) => y = Some(x.mean_keepdims(d)),
            ("mean", false) => y = Some(x.mean_dims(d)),
            ("amax", true) => y = Some(x.max_keepdims(d)),
            ("amax", false) => y = Some(x.max_dims(d)),
            ("amin", true) => y = Some(x.min_keepdims(d)),
            ("amin", false) => y = Some(x.min_dims(d)),
            ("var", true) => y = Some(x.var_keepdims(d, correction)),
            ("var", false) => y = Some(x.var_dims(d, correction)),
            ("std", true) => y = Some(x.std_keepdims(d, correction)),
            ("std", false) => y = Some(x.std_dims(d, correction)),
            ("norm", true) => y = Some(x.norm_keepdims(p, d)),
            ("norm", false) => y = Some(x.norm_dims(p, d)),
            ("prod", true) => y = Some(x.prod_keepdims(d)),
            ("prod", false) => y = Some(x.prod_dims(d)),
            ("sort", _) => indices = Some(x.sort(d[0], config["descending"] == true)),
            ("topk", _) => indices = Some(x.topk(2, d[0], config["largest"] == true)),
            ("max", _) => indices = Some(x.max_with_index(d[0])),
            ("min", _) => indices = Some(x.min_with_index(d[0])),
            _ => unreachable!("{case}"),
        }
        let (y, suffix) = match (y, indices) {
            (Some(y), _) => (y, "out"),
            (None, Some((values, places))) => {
                assert_eq!(places.to_vec::<i64>(), golden.expect(&case, "output.indices").to_vec::<i64>(), "{case}");
                (values, "values")
            }
            _ => unreachable!(),
        };
        close(&case, "the result", y.tensor(), &golden.expect(&case, &format!("output.{suffix}")));
        let key = if suffix == "out" { "grad_output" } else { "grad_output.values" };
        let gradients = y.backward_from(&golden.expect(&case, key));
        close(&case, "the gradient", gradients.wrt(&x), &golden.expect(&case, "grad_input.input"));
        checked += 1;
    }
    assert!(checked >= 50, "only {checked} cases");
}
