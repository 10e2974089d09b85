//! Trigonometric and hyperbolic functions.

use super::arithmetic::each;
use super::cast::promote;
use super::unary::unary;
use crate::{Function, Saved, Var};
use ferrograd_tensor::Tensor;

unary! {
    /// Sine, in radians; `d sin(x)/dx = cos x`.
    Sin sin() input |x, g| g * x.cos();
    /// Cosine, in radians; `d cos(x)/dx = −sin x`.
    Cos cos() input |x, g| -(g * x.sin());
    /// Hyperbolic tangent; `d tanh(x)/dx = 1 − y²`.
    Tanh tanh() output with TanhGrad |y, g| g * (1.0 - y.square());
}

/// `θ = atan2(y, x)`: `∂θ/∂y = x/(x² + y²)`, `∂θ/∂x = −y/(x² + y²)`.
struct Atan2;
impl Function for Atan2 {
    fn name(&self) -> &'static str {
        "atan2"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        vec![x[0].atan2(&x[1])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let radius2 = |s: &Saved| s.input(0).square() + s.input(1).square();
        each(saved, g, [&|s, g| g * s.input(1) / radius2(s), &|s, g| -(g * s.input(0)) / radius2(s)])
    }
}

impl Var {
    /// The angle of the point `(x, y)` = `(other, self)`, in (−π, π].
    #[track_caller]
    pub fn atan2(&self, other: &Var) -> Var {
        let [y, x] = promote("atan2", [self, other]);
        Atan2.apply1(&[&y, &x])
    }
}
