//! `+ − × ÷` and their kin: two arguments, broadcast against each other and promoted to one dtype.

use crate::backend::{Binary, Unary};
use crate::tensor::same_device;
use crate::{DType, Tensor, ensure};
use std::borrow::Cow;
use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

/// Both operands with the common dtype and shape.
#[track_caller]
pub(crate) fn broadcast<'a>(op: &'static str, a: &'a Tensor, b: &'a Tensor, dtype: DType) -> [Cow<'a, Tensor>; 2] {
    same_device(op, &[a, b]);
    let operands = [a, b].map(|x| if x.dtype == dtype { Cow::Borrowed(x) } else { Cow::Owned(x.to_dtype(dtype)) });
    if a.shape() == b.shape() {
        return operands;
    }
    let shape = a.shape().broadcast(b.shape(), op);
    operands.map(|x| Cow::Owned(x.with_layout(x.layout.expand(&shape, op))))
}

#[track_caller]
fn binary(name: &'static str, op: Binary, a: &Tensor, b: &Tensor) -> Tensor {
    let mut dtype = a.dtype.promote(b.dtype);
    let float_only = matches!(op, Binary::Div | Binary::Pow | Binary::Atan2);
    if float_only && !dtype.is_float() {
        dtype = DType::F32;
    }
    ensure!(
        dtype != DType::Bool,
        DType,
        name,
        "not defined for bool and bool (use logical_and, logical_or, logical_not, or cast with to_dtype)"
    );
    let [a, b] = broadcast(name, a, b, dtype);
    if matches!(op, Binary::Rem) && dtype.is_int() {
        ensure!(!b.eq_scalar(0.0).any().item::<bool>(), Value, name, "integer remainder by zero");
    }
    a.device.backend().binary(op, &a, &b)
}

impl Tensor {
    /// `a + b`.
    #[track_caller]
    pub fn add(&self, other: &Tensor) -> Tensor {
        binary("add", Binary::Add, self, other)
    }
    /// `a − b`.
    #[track_caller]
    pub fn sub(&self, other: &Tensor) -> Tensor {
        binary("sub", Binary::Sub, self, other)
    }
    /// `a · b`, elementwise.
    #[track_caller]
    pub fn mul(&self, other: &Tensor) -> Tensor {
        binary("mul", Binary::Mul, self, other)
    }
    /// `a / b`; integers become f32.
    #[track_caller]
    pub fn div(&self, other: &Tensor) -> Tensor {
        binary("div", Binary::Div, self, other)
    }
    /// The remainder `a − b⌊a/b⌋`, with the divisor's sign (Python's `%`).
    #[track_caller]
    pub fn rem(&self, other: &Tensor) -> Tensor {
        binary("rem", Binary::Rem, self, other)
    }
    /// `aᵇ`; integers become f32.
    #[track_caller]
    pub fn pow(&self, other: &Tensor) -> Tensor {
        binary("pow", Binary::Pow, self, other)
    }
    /// The larger of the two; NaN wins.
    #[track_caller]
    pub fn maximum(&self, other: &Tensor) -> Tensor {
        binary("maximum", Binary::Max, self, other)
    }
    /// The smaller of the two; NaN wins.
    #[track_caller]
    pub fn minimum(&self, other: &Tensor) -> Tensor {
        binary("minimum", Binary::Min, self, other)
    }
    /// The angle of the point `(x, y)` = `(other, self)`, in (−π, π].
    #[track_caller]
    pub fn atan2(&self, other: &Tensor) -> Tensor {
        binary("atan2", Binary::Atan2, self, other)
    }
    /// A derivative kernel of two floats of one dtype; for the autograd crate and for users' own functions.
    #[track_caller]
    pub fn binary_grad(&self, op: Binary, g: &Tensor) -> Tensor {
        binary("binary_grad", op, self, g)
    }
    /// `self += other`: in place if nobody else holds the storage. `other` broadcasts to this shape and is cast to this
    /// dtype, which may narrow it (f64 to f32, i64 to u8) but not truncate floats to integers.
    #[track_caller]
    pub fn add_assign(&mut self, other: &Tensor) {
        const OP: &str = "add_assign";
        ensure!(self.dtype != DType::Bool, DType, OP, "not defined for bool (cast with to_dtype)");
        ensure!(
            self.dtype.is_float() || !other.dtype.is_float(),
            DType,
            OP,
            "{} cannot hold the sum with {} (cast either with to_dtype)",
            self.dtype,
            other.dtype
        );
        same_device(OP, &[self, other]);
        if other.dtype == self.dtype && other.shape() == self.shape() {
            return self.device.backend().binary_assign(Binary::Add, self, other);
        }
        let other = other.to_dtype(self.dtype);
        let other = other.with_layout(other.layout.expand(self.shape(), OP));
        self.device.backend().binary_assign(Binary::Add, self, &other);
    }
    /// `x + s`, in this tensor's dtype (f32 if it is integer and `s` fractional).
    #[track_caller]
    pub fn add_scalar(&self, s: f64) -> Tensor {
        self.with_scalar("add_scalar", s, Unary::AddScalar(s))
    }
    /// `x · s`, likewise.
    #[track_caller]
    pub fn mul_scalar(&self, s: f64) -> Tensor {
        self.with_scalar("mul_scalar", s, Unary::MulScalar(s))
    }
    /// `s − x`, likewise.
    #[track_caller]
    pub fn rsub_scalar(&self, s: f64) -> Tensor {
        self.with_scalar("rsub_scalar", s, Unary::RsubScalar(s))
    }
    /// `s / x`; integers become f32.
    #[track_caller]
    pub fn rdiv_scalar(&self, s: f64) -> Tensor {
        self.float_unary("rdiv_scalar", Unary::RdivScalar(s))
    }
    /// `x / s`; integers become f32.
    #[track_caller]
    pub fn div_scalar(&self, s: f64) -> Tensor {
        self.float_unary("div_scalar", Unary::DivScalar(s))
    }

    #[track_caller]
    fn with_scalar(&self, name: &'static str, s: f64, op: Unary) -> Tensor {
        if self.dtype.is_float() || (self.dtype.is_int() && s.fract() == 0.0) {
            return self.device.backend().unary(op, self);
        }
        ensure!(self.dtype != DType::Bool, DType, name, "not defined for bool (cast with to_dtype)");
        self.device.backend().unary(op, &self.to_dtype(DType::F32))
    }
}

macro_rules! operators {
    ($($Trait:ident $method:ident $scalar:expr, $left:expr;)*) => {$(
        impl $Trait<&Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor { Tensor::$method(self, other) }
        }
        impl $Trait<Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor { Tensor::$method(self, &other) }
        }
        impl $Trait<&Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor { Tensor::$method(&self, other) }
        }
        impl $Trait<Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor { Tensor::$method(&self, &other) }
        }
        impl $Trait<f64> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, s: f64) -> Tensor { $scalar(self, s) }
        }
        impl $Trait<f64> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, s: f64) -> Tensor { $scalar(&self, s) }
        }
        impl $Trait<&Tensor> for f64 {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, x: &Tensor) -> Tensor { $left(x, self) }
        }
        impl $Trait<Tensor> for f64 {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, x: Tensor) -> Tensor { $left(&x, self) }
        }
    )*};
}
operators! {
    Add add Tensor::add_scalar, Tensor::add_scalar;
    Sub sub |x: &Tensor, s: f64| x.add_scalar(-s), Tensor::rsub_scalar;
    Mul mul Tensor::mul_scalar, Tensor::mul_scalar;
    Div div Tensor::div_scalar, Tensor::rdiv_scalar;
    Rem rem |x: &Tensor, s: f64| x.rem(&x.rem_scalar(s)), |x: &Tensor, s: f64| x.rem_scalar(s).rem(x);
}
impl Tensor {
    /// The other operand of a remainder that is a plain number: of this tensor's dtype, or of i64 if that is an integer
    /// type too small for it (a remainder, unlike a sum, is not right modulo 2⁸).
    #[track_caller]
    fn rem_scalar(&self, s: f64) -> Tensor {
        let dtype = match self.dtype {
            d if d.is_float() => d,
            _ if s.fract() != 0.0 => DType::F32,
            d if d == DType::Bool || d.holds(s) => d,
            _ => {
                ensure!(DType::I64.holds(s), Value, "rem", "{s} lies outside of the integers that i64 holds");
                DType::I64
            }
        };
        Tensor::full_on((), s, dtype, &self.device)
    }
}
impl Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(self)
    }
}
impl Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(&self)
    }
}
