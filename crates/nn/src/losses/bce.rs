//! Binary cross-entropy of probabilities.

use super::{pair, reduce};
use ferrograd_autograd::{Function, Reduction, Saved, Var};
use ferrograd_tensor::{Tensor, ensure};

/// `−(y ln x + (1 − y) ln(1 − x))` with logarithms no smaller than −100, as PyTorch has it; inputs are x and y.
///
/// `∂/∂x = (x − y) / max(x(1 − x), 10⁻¹²)`, `∂/∂y = ln(1 − x) − ln x`.
struct Bce;

fn logs(x: &Tensor) -> (Tensor, Tensor) {
    (x.log().clamp(-100.0, f64::INFINITY), x.neg().log1p().clamp(-100.0, f64::INFINITY))
}

impl Function for Bce {
    fn name(&self) -> &'static str {
        "bce"
    }
    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        let (x, y) = (&inputs[0], &inputs[1]);
        let (log_x, log_not) = logs(x);
        vec![y.add_scalar(-1.0).mul(&log_not).sub(&y.mul(&log_x))]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None, None] };
        let (x, y) = (saved.input(0), saved.input(1));
        let dx = saved.needs_grad(0).then(|| g * (&x - &y) / (&x * (1.0 - &x)).clamp(1e-12, f64::INFINITY));
        let dy = saved.needs_grad(1).then(|| {
            let log = |x: &Var| x.clamp(f64::MIN_POSITIVE, f64::INFINITY).log().clamp(-100.0, f64::INFINITY);
            g * (log(&(1.0 - &x)) - log(&x))
        });
        vec![dx, dy]
    }
}

/// `−w (y ln x + (1 − y) ln(1 − x))` of probabilities x, with logarithms no smaller than −100.
///
/// Better from logits: [`BceWithLogitsLoss`](super::BceWithLogitsLoss) loses no digits.
#[derive(Clone, Debug, Default)]
pub struct BceLoss {
    /// w: broadcasts to the input; 1, unless set.
    pub weight: Option<Tensor>,
    /// Mean, unless set.
    pub reduction: Reduction,
}
impl BceLoss {
    /// The loss of the probabilities `input` at `target`, of one shape.
    ///
    /// # Panics
    /// If the shapes differ, or an input is not in `[0, 1]`.
    #[track_caller]
    pub fn loss(&self, input: &Var, target: impl Into<Var>) -> Var {
        let (x, y) = pair("bce", input, target);
        let outside = x.tensor().lt_scalar(0.0).logical_or(&x.tensor().gt_scalar(1.0)).any().item::<bool>();
        ensure!(!outside, Value, "bce", "probabilities must be in [0, 1] (for logits, use bce_with_logits)");
        let losses = Bce.apply1(&[&x, &y]);
        reduce(weighted(losses, self.weight.as_ref()), self.reduction)
    }
}

/// `w · losses`.
#[track_caller]
pub(super) fn weighted(losses: Var, weight: Option<&Tensor>) -> Var {
    match weight {
        Some(w) => &losses * &w.to_dtype(losses.dtype()),
        None => losses,
    }
}

/// The mean of `−(y ln x + (1 − y) ln(1 − x))` of probabilities x.
#[track_caller]
pub fn bce(input: &Var, target: impl Into<Var>) -> Var {
    BceLoss::default().loss(input, target)
}
