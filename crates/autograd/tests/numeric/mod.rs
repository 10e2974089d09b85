//! Derivatives against central differences, first and second order, in f64.

use ferrograd_autograd::{GradOptions, Var, grad, grad_with};
use ferrograd_tensor::Tensor;
use serde_json::Value;

/// A pair from a configuration's number or list of two, or `default` if it is absent.
pub fn pair(config: &Value, key: &str, default: usize) -> [usize; 2] {
    let number = |v: &Value| v.as_u64().expect("a number") as usize;
    match &config[key] {
        Value::Null => [default; 2],
        Value::Array(items) => [number(&items[0]), number(&items[1])],
        v => [number(v); 2],
    }
}

/// Reproducible values in `[-1, 1)`, f64, no two of a small tensor closer than the step of a difference.
pub fn values(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1u64 << 30) as f64 - 1.0
    };
    Tensor::from_vec((0..shape.iter().product()).map(|_| next()).collect::<Vec<f64>>(), shape)
}

/// Equal to `tol`, relative to the larger of 1 and the value.
#[track_caller]
pub fn assert_close(a: &Tensor, b: &Tensor, tol: f64) {
    assert_eq!(a.shape(), b.shape());
    for (i, (a, b)) in a.to_f64_vec().into_iter().zip(b.to_f64_vec()).enumerate() {
        assert!((a - b).abs() <= tol * b.abs().max(1.0), "element {i}: {a} ≠ {b}");
    }
}

/// The gradients of a scalar function by central differences of step 1e-5: of a function with derivatives of order 1 they
/// err by about 1e-10 (curvature) + 1e-11 (rounding).
fn differences(f: &dyn Fn(&[Var]) -> Var, at: &[Tensor]) -> Vec<Tensor> {
    let step = 1e-5;
    let value = |i: usize, j: usize, change: f64| {
        let moved = |(k, x): (usize, &Tensor)| {
            let mut v = x.to_vec::<f64>();
            if k == i {
                v[j] += change;
            }
            Var::leaf(Tensor::from_vec(v, x.shape()))
        };
        f(&at.iter().enumerate().map(moved).collect::<Vec<_>>()).item::<f64>()
    };
    let gradient = |i: usize| {
        let slope = |j| (value(i, j, step) - value(i, j, -step)) / (2.0 * step);
        Tensor::from_vec((0..at[i].numel()).map(slope).collect::<Vec<f64>>(), at[i].shape())
    };
    (0..at.len()).map(gradient).collect()
}

/// First and second derivative of `f` at `at`, along random directions: the scalar `s = ⟨f, a⟩ + ½⟨f, f⟩`, whose gradient
/// depends on everything, and `Σ ⟨∂s/∂xᵢ, vᵢ⟩`.
#[track_caller]
pub fn check<F: Fn(&[Var]) -> Var>(f: F, at: &[Tensor]) {
    let scalar = |xs: &[Var]| {
        let y = f(xs);
        let a = Var::constant(values(y.dims(), 77));
        (&y * a).sum() + (&y * &y).sum() * 0.5
    };
    let slope = |xs: &[Var]| {
        let inputs: Vec<&Var> = xs.iter().collect();
        let gradients = grad_with(&[&scalar(xs)], &inputs, GradOptions::create_graph());
        let term = |(i, g): (usize, &Var)| (g * Var::constant(values(g.dims(), 100 + i as u64))).sum();
        gradients.iter().enumerate().map(term).reduce(|a, b| a + b).unwrap()
    };
    let leaves: Vec<Var> = at.iter().map(|x| Var::leaf(x.clone())).collect();
    let inputs: Vec<&Var> = leaves.iter().collect();
    for (g, expected) in grad(&scalar(&leaves), &inputs).iter().zip(differences(&scalar, at)) {
        assert_close(g.tensor(), &expected, 1e-7);
    }
    for (g, expected) in grad(&slope(&leaves), &inputs).iter().zip(differences(&slope, at)) {
        assert_close(g.tensor(), &expected, 1e-7);
    }
}

/// Each test uses the part it needs.
const _: () = {
    let _ = (pair, values, assert_close);
    let _ = check::<fn(&[Var]) -> Var>;
};
