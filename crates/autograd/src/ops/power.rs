//! Powers and roots.

use super::arithmetic::each;
use super::cast::promote;
use super::rounding::zero_like;
use super::unary::unary;
use crate::{Function, Saved, Var};
use ferrograd_tensor::Tensor;

unary! {
    /// `x²`; the derivative is `2x`.
    Square square() input |x, g| g * (x * 2.0);
    /// `√x`; the derivative is `1/(2y)`.
    Sqrt sqrt() output |y, g| g / y * 0.5;
    /// `1/√x`; the derivative is `−½y³`.
    Rsqrt rsqrt() output |y, g| g * (y.powi(3) * -0.5);
    /// `1/x`; the derivative is `−y²`.
    Recip recip() output |y, g| -(g * y.square());
    /// `xⁿ`; the derivative is `n xⁿ⁻¹`.
    Powi powi(n: i32) input |x, g| match *n {
        0 => zero_like(g),
        n => g * (x.powi(n - 1) * n as f64),
    };
    /// `xᵖ`, p a real number; the derivative is `p xᵖ⁻¹` (0 for p = 0).
    Powf powf(p: f64) input |x, g| match *p {
        0.0 => zero_like(g),
        p => g * (x.powf(p - 1.0) * p),
    };
}

/// `y = aᵇ`: `∂y/∂a = b aᵇ⁻¹` and `∂y/∂b = y ln a`. At a = 0 the limits are taken that keep both finite: b aᵇ⁻¹ = 0 for
/// b = 0, and y ln a = 0 for b ≥ 0.
struct Pow;
impl Function for Pow {
    fn name(&self) -> &'static str {
        "pow"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        saved.save_output(0);
        vec![x[0].pow(&x[1])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        // Arguments, not results, are masked: what is selected away later would be 0 · ∞ in a second derivative.
        let base = |s: &Saved, g: &Var| {
            let (a, b) = (s.input(0), s.input(1));
            let corner = a.tensor().eq_scalar(0.0).logical_and(&b.tensor().eq_scalar(0.0));
            let exponent = b.expand(g.shape()).masked_fill(&corner, 1.0) - 1.0;
            g * &b * a.pow(&exponent)
        };
        let exponent = |s: &Saved, g: &Var| {
            let (a, b) = (s.input(0), s.input(1));
            let corner = a.tensor().eq_scalar(0.0).logical_and(&b.tensor().ge_scalar(0.0));
            g * s.output(0) * a.expand(g.shape()).masked_fill(&corner, 1.0).log()
        };
        each(saved, g, [&base, &exponent])
    }
}

impl Var {
    /// `aᵇ`, elementwise; shapes broadcast, dtypes are promoted.
    #[track_caller]
    pub fn pow(&self, other: &Var) -> Var {
        let [a, b] = promote("pow", [self, other]);
        Pow.apply1(&[&a, &b])
    }
}
