//! Derivatives against finite differences: for our own operations and for users'.

use crate::engine::{GradOptions, grad_with};
use crate::mode::no_grad;
use crate::var::Var;
use ferrograd_tensor::{DType, Error, Result, Tensor};

/// How closely [`gradcheck`] looks.
#[derive(Clone, Copy, Debug)]
pub struct GradcheckOptions {
    /// The step h of the central difference `(f(x + h) − f(x − h)) / 2h`, whose error is of order h² plus ε/h.
    pub step: f64,
    /// Largest relative difference.
    pub rtol: f64,
    /// Largest absolute difference.
    pub atol: f64,
}
impl Default for GradcheckOptions {
    fn default() -> Self {
        GradcheckOptions { step: 1e-6, rtol: 1e-4, atol: 1e-6 }
    }
}

/// Compares the derivatives of `f` with central differences at `inputs` (f64), for a fixed pseudo-random weighting of
/// the outputs. `f` must be smooth near `inputs` and give the same result each time.
///
/// # Errors
/// Names the input and the element at which the two differ most, with both numbers.
///
/// ```
/// use ferrograd_autograd::{Var, gradcheck};
/// use ferrograd_tensor::Tensor;
/// gradcheck(|x| x[0].matmul(&x[1]).tanh(), &[Tensor::new([[0.1, 0.2]]), Tensor::new([[0.3], [-0.4]])])?;
/// # Ok::<(), ferrograd_tensor::Error>(())
/// ```
pub fn gradcheck(f: impl Fn(&[Var]) -> Var, inputs: &[Tensor]) -> Result<()> {
    gradcheck_with(f, inputs, GradcheckOptions::default())
}

/// [`gradcheck`] of the derivative itself: second derivatives, by the inputs and by the incoming gradient.
pub fn gradgradcheck(f: impl Fn(&[Var]) -> Var, inputs: &[Tensor]) -> Result<()> {
    gradgradcheck_with(f, inputs, GradcheckOptions::default())
}

/// [`gradcheck`] with other tolerances.
pub fn gradcheck_with(f: impl Fn(&[Var]) -> Var, inputs: &[Tensor], options: GradcheckOptions) -> Result<()> {
    if let Some((i, x)) = inputs.iter().enumerate().find(|(_, x)| x.dtype() != DType::F64) {
        let message = format!("input {i} is {}: finite differences need f64", x.dtype());
        return Err(Error::DType { op: "gradcheck", message });
    }
    let leaves: Vec<Var> = inputs.iter().map(|x| Var::leaf(x.clone())).collect();
    let y = f(&leaves);
    let weights = pseudo_random(y.tensor());
    let analytic: Vec<Var> = if y.requires_grad() {
        let options = GradOptions {
            allow_unused: true,
            grad_outputs: Some(vec![Var::constant(weights.clone())]),
            ..GradOptions::default()
        };
        grad_with(&[&y], &leaves.iter().collect::<Vec<_>>(), options)
    } else {
        inputs.iter().map(|x| Var::constant(x.zeros_like())).collect()
    };
    let value = |xs: &[Tensor]| {
        let vars: Vec<Var> = xs.iter().map(Var::from).collect();
        no_grad(|| f(&vars)).tensor().mul(&weights).sum().item::<f64>()
    };
    let mut worst: Option<(f64, String)> = None;
    for (i, x) in inputs.iter().enumerate() {
        let analytic = analytic[i].tensor().to_vec::<f64>();
        let base = x.to_vec::<f64>();
        for k in 0..base.len() {
            let at = |h: f64| {
                let mut bumped = base.clone();
                bumped[k] += h;
                let mut xs = inputs.to_vec();
                xs[i] = Tensor::from_vec(bumped, x.shape());
                value(&xs)
            };
            let numeric = (at(options.step) - at(-options.step)) / (2.0 * options.step);
            let excess = (numeric - analytic[k]).abs() - options.rtol * numeric.abs() - options.atol;
            // NaN on either side counts as the worst difference of all.
            let excess = if excess.is_nan() { f64::INFINITY } else { excess };
            if excess > 0.0 && worst.as_ref().is_none_or(|(w, _)| excess > *w) {
                let text =
                    format!("input {i}, element {k}: backward gives {}, finite differences {numeric}", analytic[k]);
                worst = Some((excess, text));
            }
        }
    }
    match worst {
        None => Ok(()),
        Some((_, message)) => {
            let op = y.node().map_or("gradcheck", |n| n.name());
            Err(Error::Derivative { op, message })
        }
    }
}

/// [`gradgradcheck`] with other tolerances.
pub fn gradgradcheck_with(f: impl Fn(&[Var]) -> Var, inputs: &[Tensor], options: GradcheckOptions) -> Result<()> {
    let y = no_grad(|| f(&inputs.iter().map(Var::from).collect::<Vec<_>>()));
    let n = inputs.len();
    let with_cotangent: Vec<Tensor> = inputs.iter().cloned().chain([pseudo_random(y.tensor())]).collect();
    let derivative = |xs: &[Var]| {
        // Under no_grad (the finite differences) the inner derivative still needs a graph of its own.
        let leaves: Vec<Var> =
            xs.iter().map(|x| if x.requires_grad() { x.clone() } else { Var::leaf(x.tensor().clone()) }).collect();
        let total = crate::mode::enable_grad(|| {
            let y = f(&leaves[..n]);
            let options = GradOptions {
                create_graph: true,
                allow_unused: true,
                grad_outputs: Some(vec![leaves[n].clone()]),
                ..GradOptions::default()
            };
            let grads = grad_with(&[&y], &leaves[..n].iter().collect::<Vec<_>>(), options);
            let terms = grads.iter().map(|g| (g * &pseudo_random(g.tensor())).sum());
            terms.reduce(|a, b| a + b).unwrap_or_else(|| Var::constant(Tensor::scalar(0.0)))
        });
        if xs.iter().any(Var::requires_grad) { total } else { total.detach() }
    };
    gradcheck_with(derivative, &with_cotangent, options)
}

/// Fixed weights in ±[½, 1½], different for neighbouring elements: no cancellation hides an error.
fn pseudo_random(like: &Tensor) -> Tensor {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let weight = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let unit = (state >> 11) as f64 / (1u64 << 53) as f64;
        let sign = if state >> 63 == 1 { -1.0 } else { 1.0 };
        sign * (0.5 + unit)
    };
    Tensor::from_vec((0..like.numel()).map(weight).collect::<Vec<f64>>(), like.shape()).to_dtype(like.dtype())
}
