//! Derivatives against central differences, of first and second order, in f64.

use ferrograd_autograd::{GradOptions, Var, grad_with};
use ferrograd_tensor::Tensor;

/// Repeatable f64 values in [−1, 1).
pub fn values(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / (1u64 << 23) as f64 - 1.0
    };
    let n = shape.iter().product();
    Tensor::from_vec((0..n).map(next).collect::<Vec<f64>>(), shape)
}

/// `Σ f(x)·c` with fixed weights c, which no symmetry of f can hide from.
fn weighted(y: &Var) -> Var {
    (y * values(y.dims(), 99)).sum()
}

/// The gradients of `loss` at `inputs` are its central differences; `inputs` are leaves.
#[track_caller]
fn agree(inputs: &[Tensor], got: &[Var], loss: &dyn Fn(&[Var]) -> f64, tolerance: f64) {
    let h = 1e-5;
    for (k, (input, got)) in inputs.iter().zip(got).enumerate() {
        let (at, got) = (input.to_vec::<f64>(), got.tensor().to_vec::<f64>());
        assert_eq!(at.len(), got.len());
        for i in 0..at.len() {
            let moved = |step: f64| {
                let mut values = at.clone();
                values[i] += step;
                let mut all: Vec<Var> = inputs.iter().map(|x| Var::leaf(x.clone())).collect();
                all[k] = Var::leaf(Tensor::from_vec(values, input.shape()));
                loss(&all)
            };
            let want = (moved(h) - moved(-h)) / (2.0 * h);
            assert!((got[i] - want).abs() <= tolerance * (1.0 + want.abs()), "input {k} [{i}]: {}, not {want}", got[i]);
        }
    }
}

/// First order: the fused backward against differences, for every input.
#[track_caller]
pub fn first_order(f: impl Fn(&[Var]) -> Var, inputs: &[Tensor]) {
    let leaves: Vec<Var> = inputs.iter().map(|x| Var::leaf(x.clone())).collect();
    let grads = weighted(&f(&leaves)).backward();
    let got: Vec<Var> = leaves.iter().map(|x| Var::constant(grads.wrt(x).clone())).collect();
    agree(inputs, &got, &|x| weighted(&f(x)).item(), 1e-8);
}

/// Second order: the gradient of the penalty `Σ ‖∂f/∂x‖²`, over all inputs, against differences; and the gradient with
/// history against the one without.
#[track_caller]
pub fn second_order(f: impl Fn(&[Var]) -> Var, inputs: &[Tensor]) {
    let first = |x: &[Var]| {
        let refs: Vec<&Var> = x.iter().collect();
        grad_with(&[&weighted(&f(x))], &refs, GradOptions { allow_unused: true, ..GradOptions::create_graph() })
    };
    // Weighted as well: the plain squares of a softmax's gradients would do, but leave its sums unseen.
    let penalty = |x: &[Var]| {
        let terms = first(x).into_iter().enumerate().map(|(k, g)| (g.square() * values(g.dims(), 7 + k as u64)).sum());
        terms.reduce(|a, b| a + b).expect("an input")
    };
    let leaves: Vec<Var> = inputs.iter().map(|x| Var::leaf(x.clone())).collect();
    let grads = weighted(&f(&leaves)).backward();
    for (x, g) in leaves.iter().zip(first(&leaves)) {
        assert!(g.tensor().all_close(grads.wrt(x), 1e-9, 1e-10), "{}\nis not\n{}", g.tensor(), grads.wrt(x));
    }
    let refs: Vec<&Var> = leaves.iter().collect();
    let options = GradOptions { allow_unused: true, ..GradOptions::default() };
    let got = grad_with(&[&penalty(&leaves)], &refs, options);
    agree(inputs, &got, &|x| penalty(x).item(), 1e-6);
}

/// Both.
#[track_caller]
pub fn derivatives(f: impl Fn(&[Var]) -> Var, inputs: &[Tensor]) {
    first_order(&f, inputs);
    second_order(&f, inputs);
}
