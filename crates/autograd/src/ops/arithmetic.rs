//! `+ − × ÷` with broadcasting: where an operand was repeated, its gradient is summed.

use super::cast::promote;
use crate::{Function, Saved, Var};
use ferrograd_tensor::{Shape, Tensor};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// `∂/∂a (a + b) = g`, `∂/∂b (a + b) = g`.
struct AddOp;
impl Function for AddOp {
    fn name(&self) -> &'static str {
        "add"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![&x[0] + &x[1]]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        each(saved, g, [&|_, g| g.clone(), &|_, g| g.clone()])
    }
}

/// `∂/∂a (a − b) = g`, `∂/∂b (a − b) = −g`.
struct SubOp;
impl Function for SubOp {
    fn name(&self) -> &'static str {
        "sub"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![&x[0] - &x[1]]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        each(saved, g, [&|_, g| g.clone(), &|_, g| -g])
    }
}

/// `∂/∂a (ab) = gb`, `∂/∂b (ab) = ga`.
struct MulOp;
impl Function for MulOp {
    fn name(&self) -> &'static str {
        "mul"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        vec![&x[0] * &x[1]]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        each(saved, g, [&|s, g| g * s.input(1), &|s, g| g * s.input(0)])
    }
}

/// `∂/∂a (a/b) = g/b`, `∂/∂b (a/b) = −ga/b²`.
struct DivOp;
impl Function for DivOp {
    fn name(&self) -> &'static str {
        "div"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        vec![&x[0] / &x[1]]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        each(saved, g, [&|s, g| g / s.input(1), &|s, g| -(g * s.input(0)) / s.input(1).square()])
    }
}

/// `a mod b = a − b⌊a/b⌋`: `∂/∂a = g`, `∂/∂b = −g⌊a/b⌋`.
struct RemOp;
impl Function for RemOp {
    fn name(&self) -> &'static str {
        "rem"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        vec![&x[0] % &x[1]]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        each(saved, g, [&|_, g| g.clone(), &|s, g| -(g * (s.input(0).tensor() / s.input(1).tensor()).floor())])
    }
}

type Rule<'a> = &'a dyn Fn(&Saved, &Var) -> Var;

/// The gradient of each operand that needs one, summed to its shape.
pub(super) fn each(saved: &Saved, g: &[Option<Var>], rules: [Rule; 2]) -> Vec<Option<Var>> {
    let Some(g) = &g[0] else { return vec![None, None] };
    let gradient = |i: usize| {
        let (g, shape) = (rules[i](saved, g), saved.input_shape(i));
        if g.shape() == shape { g } else { g.sum_to(shape) }
    };
    (0..2).map(|i| saved.needs_grad(i).then(|| gradient(i))).collect()
}

/// `y = x + s`, `y = s x`: linear in x.
struct Affine {
    scale: f64,
    shift: f64,
}
impl Function for Affine {
    fn name(&self) -> &'static str {
        "affine"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        let y = match (self.scale, self.shift) {
            (-1.0, 0.0) => -&x[0],
            (1.0, b) => x[0].add_scalar(b),
            (-1.0, b) => x[0].rsub_scalar(b),
            (a, 0.0) => x[0].mul_scalar(a),
            (a, b) => x[0].mul_scalar(a).add_scalar(b),
        };
        vec![y]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| if self.scale == 1.0 { g.clone() } else { g.mul_scalar(self.scale) })]
    }
}

/// `y = x / s`, which multiplying by 1/s would round twice.
struct DivScalar(f64);
impl Function for DivScalar {
    fn name(&self) -> &'static str {
        "div_scalar"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].div_scalar(self.0)]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| g.div_scalar(self.0))]
    }
}

/// Applies `op` to both operands in the dtype that they promote to.
#[track_caller]
fn apply_promoted(op: impl Function, a: &Var, b: &Var) -> Var {
    if a.dtype() == b.dtype() {
        return op.apply1(&[a, b]);
    }
    let [a, b] = promote(op.name(), [a, b]);
    op.apply1(&[&a, &b])
}

impl Var {
    /// `a + b`; shapes broadcast, dtypes are promoted.
    #[track_caller]
    pub fn add(&self, other: &Var) -> Var {
        apply_promoted(AddOp, self, other)
    }
    /// `a − b`; shapes broadcast, dtypes are promoted.
    #[track_caller]
    pub fn sub(&self, other: &Var) -> Var {
        apply_promoted(SubOp, self, other)
    }
    /// `a · b`, elementwise; shapes broadcast, dtypes are promoted.
    #[track_caller]
    pub fn mul(&self, other: &Var) -> Var {
        apply_promoted(MulOp, self, other)
    }
    /// `a / b`; shapes broadcast, dtypes are promoted.
    #[track_caller]
    pub fn div(&self, other: &Var) -> Var {
        apply_promoted(DivOp, self, other)
    }
    /// The remainder `a − b⌊a/b⌋`, with the divisor's sign; shapes broadcast, dtypes are promoted.
    #[track_caller]
    pub fn rem(&self, other: &Var) -> Var {
        apply_promoted(RemOp, self, other)
    }
    /// `x / s`.
    #[track_caller]
    pub fn div_scalar(&self, s: f64) -> Var {
        DivScalar(s).apply1(&[self])
    }
    /// `x + s`.
    #[track_caller]
    pub fn add_scalar(&self, s: f64) -> Var {
        Affine { scale: 1.0, shift: s }.apply1(&[self])
    }
    /// `s x`.
    #[track_caller]
    pub fn mul_scalar(&self, s: f64) -> Var {
        Affine { scale: s, shift: 0.0 }.apply1(&[self])
    }
    /// `s − x`.
    #[track_caller]
    pub fn rsub_scalar(&self, s: f64) -> Var {
        Affine { scale: -1.0, shift: s }.apply1(&[self])
    }
    /// `s / x`.
    #[track_caller]
    pub fn rdiv_scalar(&self, s: f64) -> Var {
        self.recip().mul_scalar(s)
    }
    /// `−x`.
    #[track_caller]
    pub fn neg(&self) -> Var {
        self.mul_scalar(-1.0)
    }
    /// The sum over the dimensions along which `shape` was broadcast to this shape.
    #[track_caller]
    pub fn sum_to(&self, shape: &Shape) -> Var {
        if self.shape() == shape {
            return self.clone();
        }
        let lead = self.rank() - shape.rank();
        let dims: Vec<usize> =
            (0..self.rank()).filter(|&d| d < lead || (shape[d - lead] == 1 && self.dims()[d] != 1)).collect();
        self.sum_keepdims(&dims[..]).reshape(shape)
    }
}

macro_rules! operators {
    ($($Trait:ident $method:ident $scalar:expr, $left:expr;)*) => {$(
        operators!(@pair $Trait $method, &Var, &Var, |a: &Var, b: &Var| Var::$method(a, b));
        operators!(@pair $Trait $method, &Var, Var, |a: &Var, b: Var| Var::$method(a, &b));
        operators!(@pair $Trait $method, Var, &Var, |a: Var, b: &Var| Var::$method(&a, b));
        operators!(@pair $Trait $method, Var, Var, |a: Var, b: Var| Var::$method(&a, &b));
        operators!(@pair $Trait $method, &Var, &Tensor, |a: &Var, b: &Tensor| Var::$method(a, &b.into()));
        operators!(@pair $Trait $method, Var, &Tensor, |a: Var, b: &Tensor| Var::$method(&a, &b.into()));
        operators!(@pair $Trait $method, &Var, Tensor, |a: &Var, b: Tensor| Var::$method(a, &b.into()));
        operators!(@pair $Trait $method, Var, Tensor, |a: Var, b: Tensor| Var::$method(&a, &b.into()));
        operators!(@pair $Trait $method, Tensor, &Var, |a: Tensor, b: &Var| Var::$method(&a.into(), b));
        operators!(@pair $Trait $method, Tensor, Var, |a: Tensor, b: Var| Var::$method(&a.into(), &b));
        operators!(@pair $Trait $method, &Tensor, &Var, |a: &Tensor, b: &Var| Var::$method(&a.into(), b));
        operators!(@pair $Trait $method, &Tensor, Var, |a: &Tensor, b: Var| Var::$method(&a.into(), &b));
        operators!(@pair $Trait $method, &Var, f64, |a: &Var, s: f64| $scalar(a, s));
        operators!(@pair $Trait $method, Var, f64, |a: Var, s: f64| $scalar(&a, s));
        operators!(@pair $Trait $method, f64, &Var, |s: f64, a: &Var| $left(a, s));
        operators!(@pair $Trait $method, f64, Var, |s: f64, a: Var| $left(&a, s));
    )*};
    (@pair $Trait:ident $method:ident, $A:ty, $B:ty, $f:expr) => {
        impl $Trait<$B> for $A {
            type Output = Var;
            #[track_caller]
            fn $method(self, other: $B) -> Var {
                #[allow(clippy::redundant_closure_call)]
                ($f)(self, other)
            }
        }
    };
}
operators! {
    Add add Var::add_scalar, Var::add_scalar;
    Sub sub |x: &Var, s: f64| x.add_scalar(-s), Var::rsub_scalar;
    Mul mul Var::mul_scalar, Var::mul_scalar;
    Div div Var::div_scalar, Var::rdiv_scalar;
}
impl Neg for &Var {
    type Output = Var;
    #[track_caller]
    fn neg(self) -> Var {
        Var::neg(self)
    }
}
impl Neg for Var {
    type Output = Var;
    #[track_caller]
    fn neg(self) -> Var {
        Var::neg(&self)
    }
}
