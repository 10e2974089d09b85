//! Activations: fused derivative kernels for the first order, compositions for the rest.

use crate::{Function, Saved, Var};
use ferrograd_tensor::{Tensor, backend::Binary};

/// `gelu(x) = x Φ(x) = ½x(1 + erf(x/√2))`. Hendrycks & Gimpel 2016.
struct Gelu;
impl Function for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_input(0);
        vec![x[0].gelu()]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let g = g[0].as_ref().unwrap();
        vec![Some(Var::constant(saved.input(0).tensor().binary_grad(Binary::GeluGrad, g.tensor())))]
    }
    fn composed(&self, x: &[Var]) -> Option<Vec<Var>> {
        let x = &x[0];
        Some(vec![x * ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5])
    }
}

/// `d tanh(x)/dx = 1 − y²`.
struct Tanh;
impl Function for Tanh {
    fn name(&self) -> &'static str {
        "tanh"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_output(0);
        vec![x[0].tanh()]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let (y, g) = (saved.output(0), g[0].as_ref().unwrap());
        vec![Some(match saved.create_graph() {
            true => g * (1.0 - y.square()),
            false => Var::constant(y.tensor().binary_grad(Binary::TanhGrad, g.tensor())),
        })]
    }
}

/// `d erf(x)/dx = 2/√π e^(−x²)`.
struct Erf;
impl Function for Erf {
    fn name(&self) -> &'static str {
        "erf"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_input(0);
        vec![x[0].erf()]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let g = g[0].as_ref().unwrap();
        vec![Some(g * (-saved.input(0).square()).exp() * std::f64::consts::FRAC_2_SQRT_PI)]
    }
}

/// `d eˣ/dx = eˣ`.
struct Exp;
impl Function for Exp {
    fn name(&self) -> &'static str {
        "exp"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_output(0);
        vec![x[0].exp()]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![Some(g[0].as_ref().unwrap() * saved.output(0))]
    }
}

/// `d xⁿ/dx = n xⁿ⁻¹`.
struct Powi(i32);
impl Function for Powi {
    fn name(&self) -> &'static str {
        "powi"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_input(0);
        vec![x[0].powi(self.0)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let (x, g) = (saved.input(0), g[0].as_ref().unwrap());
        vec![Some(match self.0 {
            0 => g * 0.0,
            n => g * x.powi(n - 1) * n as f64,
        })]
    }
}

impl Var {
    /// `x Φ(x)`, see [`Tensor::gelu`].
    #[track_caller]
    pub fn gelu(&self) -> Var {
        Gelu.apply1(&[self])
    }
    /// Hyperbolic tangent.
    #[track_caller]
    pub fn tanh(&self) -> Var {
        Tanh.apply1(&[self])
    }
    /// The error function.
    #[track_caller]
    pub fn erf(&self) -> Var {
        Erf.apply1(&[self])
    }
    /// `eˣ`.
    #[track_caller]
    pub fn exp(&self) -> Var {
        Exp.apply1(&[self])
    }
    /// `xⁿ`.
    #[track_caller]
    pub fn powi(&self, n: i32) -> Var {
        Powi(n).apply1(&[self])
    }
    /// `x²`.
    #[track_caller]
    pub fn square(&self) -> Var {
        self.powi(2)
    }
    /// `1/x`.
    #[track_caller]
    pub fn recip(&self) -> Var {
        self.powi(-1)
    }
}
