//! Vector norms, with gradient 0 where the norm is 0.

use super::max::shares;
use super::sum::dropped;
use crate::{Function, Saved, Var};
use ferrograd_tensor::{Axes, Tensor};

/// `|x|^q`, or with `signed` `sign(x) |x|^q`; 0 at x = 0 where q < 0. Each is the other's derivative: `q·f_{q−1}`.
struct PowAbs {
    q: f64,
    signed: bool,
}
impl Function for PowAbs {
    fn name(&self) -> &'static str {
        "norm"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_input(0);
        let x = &x[0];
        let power = match self.q {
            0.0 => x.ones_like(),
            1.0 if self.signed => return vec![x.clone()],
            1.0 => x.abs(),
            2.0 => x.square(),
            q => x.abs().powf(q),
        };
        let power = if self.q < 0.0 { power.masked_fill(&x.eq_scalar(0.0), 0.0) } else { power };
        vec![if self.signed { power * x.sign() } else { power }]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let derivative = PowAbs { q: self.q - 1.0, signed: !self.signed };
        vec![g[0].as_ref().map(|g| match self.q {
            0.0 => g * 0.0,
            q => derivative.apply1(&[&saved.input(0)]) * g * q,
        })]
    }
}

/// `y = (Σ |x|ᵖ)^(1/p)` over `dims`, which stay: `∂y/∂x = sign(x) |x|^(p−1) y^(1−p)`, 0 where y is 0; for p = ±∞ the
/// sign, shared by the elements that attain the extremum.
struct Norm {
    p: f64,
    dims: Vec<usize>,
}
impl Function for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_input(0);
        saved.save_output(0);
        vec![x[0].norm_keepdims(self.p, &self.dims[..])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None] };
        let (x, y) = (saved.input(0), saved.output(0));
        vec![Some(if self.p == 0.0 {
            (g * 0.0).expand(x.shape())
        } else if self.p.is_infinite() {
            let size = x.tensor().abs();
            let hit = size.eq(y.tensor()).logical_or(&size.is_nan());
            g * &(shares(&hit, &self.dims, x.dtype()) * x.tensor().sign())
        } else {
            let power = |x: &Var, q: f64, signed: bool| PowAbs { q, signed }.apply1(&[x]);
            power(&x, self.p - 1.0, true) * (power(&y, 1.0 - self.p, false) * g)
        })]
    }
}

impl Var {
    /// `(Σ |x|ᵖ)^(1/p)` over all elements, see [`norm_dims`](Var::norm_dims).
    #[track_caller]
    pub fn norm(&self, p: f64) -> Var {
        self.norm_dims(p, ..)
    }
    /// `(Σ |x|ᵖ)^(1/p)` over the named dimensions, which disappear, see [`Tensor::norm_dims`]. The gradient is 0 where
    /// the norm is 0, and at elements that are 0; for p = ±∞, equals share it.
    #[track_caller]
    pub fn norm_dims(&self, p: f64, dims: impl Axes) -> Var {
        let dims = dims.resolve(self.rank(), "norm");
        dropped(self.norm_keepdims(p, &dims[..]), &dims)
    }
    /// [`norm_dims`](Var::norm_dims) whose dimensions stay with extent 1.
    #[track_caller]
    pub fn norm_keepdims(&self, p: f64, dims: impl Axes) -> Var {
        let dims = dims.resolve(self.rank(), "norm").to_vec();
        Norm { p, dims }.apply1(&[&self.raised()])
    }
}
