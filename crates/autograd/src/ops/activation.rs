//! Activations.

use super::unary::unary;
use crate::{Activation, Var};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

unary! {
    /// The logistic function `σ(x) = 1/(1 + e⁻ˣ)`; the derivative is `y(1 − y)`.
    Sigmoid sigmoid() output with SigmoidGrad |y, g| g * (&y * (1.0 - &y));
    /// `max(x, 0)`; the derivative is 1 for positive x, else 0 (at 0 too).
    Relu relu() output with ReluGrad |y, g| g.masked_fill(&y.tensor().le_scalar(0.0), 0.0);
    /// `x Φ(x) = ½x(1 + erf(x/√2))`, Φ the normal distribution function; the derivative is `Φ(x) + x φ(x)`. Hendrycks &
    /// Gimpel 2016.
    Gelu gelu() input with GeluGrad |x, g| {
        let distribution = ((&x * FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
        let density = (x.square() * -0.5).exp() * (0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI);
        g * (distribution + &x * density)
    };
    /// The tanh approximation of [`gelu`](Var::gelu) that GPT-2 uses: `½x(1 + tanh u)` with `u = √(2/π)(x + 0.044715x³)`;
    /// the derivative is `½(1 + tanh u) + ½x(1 − tanh² u) u'`.
    GeluTanh gelu_tanh() input with GeluTanhGrad |x, g| {
        let (a, c) = (0.044715, (2.0 / PI).sqrt());
        let t = ((&x + x.powi(3) * a) * c).tanh();
        let slope = (x.square() * (3.0 * a) + 1.0) * c;
        g * ((&t + 1.0) * 0.5 + &x * (1.0 - t.square()) * slope * 0.5)
    };
    /// `x σ(x)`, also called swish; the derivative is `σ(x)(1 + x(1 − σ(x)))`. Ramachandran et al. 2017.
    Silu silu() input with SiluGrad |x, g| {
        let s = x.sigmoid();
        g * (&s * (&x * (1.0 - &s) + 1.0))
    };
    /// `ln(1 + eˣ)`; the derivative is `σ(x)`.
    Softplus softplus() input |x, g| g * x.sigmoid();
    /// `x` if positive, else `α(eˣ − 1)`; the derivative is 1 or `αeˣ`. Clevert et al. 2015.
    Elu elu(alpha: f64) input |x, g| {
        // The argument is kept below 0, so that the branch that is not taken stays finite.
        let below = x.clamp(f64::NEG_INFINITY, 0.0).exp() * *alpha;
        Var::where_(&x.tensor().gt_scalar(0.0), g, &(g * below))
    };
    /// `x` if positive, else `αx`.
    LeakyRelu leaky_relu(alpha: f64) input |x, g| {
        Var::where_(&x.tensor().gt_scalar(0.0), g, &(g * *alpha))
    };
}

impl Var {
    /// `f(x)` elementwise.
    #[track_caller]
    pub fn activate(&self, f: Activation) -> Var {
        match f {
            Activation::Identity => self.clone(),
            Activation::Relu => self.relu(),
            Activation::Gelu => self.gelu(),
            Activation::GeluTanh => self.gelu_tanh(),
            Activation::Silu => self.silu(),
            Activation::Tanh => self.tanh(),
            Activation::Sigmoid => self.sigmoid(),
            Activation::Elu => self.elu(1.0),
            Activation::LeakyRelu => self.leaky_relu(Activation::LEAK),
            Activation::Softplus => self.softplus(),
        }
    }
}
