//! Comparisons and choices.

use super::arithmetic::broadcast;
use crate::backend::Compare;
use crate::tensor::same_device;
use crate::{DType, Tensor, ensure};

#[track_caller]
fn compare(name: &'static str, op: Compare, a: &Tensor, b: &Tensor) -> Tensor {
    let [a, b] = broadcast(name, a, b, a.dtype().promote(b.dtype()));
    a.device().backend().compare(op, &a, &b)
}

/// The plain number `s` as `x` is compared with it.
fn comparand(x: &Tensor, s: f64) -> Tensor {
    let (s, dtype) = match s {
        _ if x.dtype.is_float() => (s, x.dtype),
        _ if s.fract() != 0.0 => (s, DType::F64), // below 2⁵²: a larger integer may round there, but not past s
        _ if DType::I64.holds(s) => (s, DType::I64),
        _ => (s.signum() * f64::INFINITY, DType::F64),
    };
    Tensor::full_on((), s, dtype, &x.device)
}

macro_rules! compare {
    ($($(#[$doc:meta])* $name:ident $scalar:ident $op:ident;)*) => {$(
        impl Tensor {
            $(#[$doc])*
            ///
            /// Broadcasts and promotes as arithmetic does; the result is bool. NaN is unequal to everything.
            #[track_caller]
            pub fn $name(&self, other: &Tensor) -> Tensor {
                compare(stringify!($name), Compare::$op, self, other)
            }
            /// The same with a plain number: a tensor of floats with the nearest number of its dtype, integers and bool
            /// with its exact value.
            #[track_caller]
            pub fn $scalar(&self, s: f64) -> Tensor {
                compare(stringify!($name), Compare::$op, self, &comparand(self, s))
            }
        }
    )*};
}
compare! {
    /// `a = b`.
    eq eq_scalar Eq;
    /// `a ≠ b`.
    ne ne_scalar Ne;
    /// `a < b`.
    lt lt_scalar Lt;
    /// `a ≤ b`.
    le le_scalar Le;
    /// `a > b`.
    gt gt_scalar Gt;
    /// `a ≥ b`.
    ge ge_scalar Ge;
}

impl Tensor {
    /// `a` where this bool tensor is true, else `b`. All three broadcast; `a` and `b` are promoted to one dtype.
    #[track_caller]
    pub fn where_(&self, a: &Tensor, b: &Tensor) -> Tensor {
        const OP: &str = "where";
        ensure!(self.dtype == DType::Bool, DType, OP, "the condition must be bool, got {}", self.dtype);
        same_device(OP, &[self, a, b]);
        let [a, b] = broadcast(OP, a, b, a.dtype.promote(b.dtype));
        let shape = a.shape().broadcast(self.shape(), OP);
        let expand = |t: &Tensor| t.with_layout(t.layout.expand(&shape, OP));
        self.device.backend().select(&expand(self), &expand(&a), &expand(&b))
    }
    /// `value` where `mask` (bool, broadcast to this shape) is true, else this.
    #[track_caller]
    pub fn masked_fill(&self, mask: &Tensor, value: f64) -> Tensor {
        ensure!(mask.dtype == DType::Bool, DType, "masked_fill", "the mask must be bool, got {}", mask.dtype);
        same_device("masked_fill", &[self, mask]);
        let mask = mask.with_layout(mask.layout.expand(self.shape(), "masked_fill"));
        let value = Tensor::full_on((), value, self.dtype, &self.device);
        let value = value.with_layout(value.layout.expand(self.shape(), "masked_fill"));
        self.device.backend().select(&mask, &value, self)
    }
    /// Both true. Arguments that are not bool count as true where they are not 0.
    #[track_caller]
    pub fn logical_and(&self, other: &Tensor) -> Tensor {
        self.to_dtype(DType::Bool).to_dtype(DType::U8).mul(&other.to_dtype(DType::Bool)).to_dtype(DType::Bool)
    }
    /// At least one true.
    #[track_caller]
    pub fn logical_or(&self, other: &Tensor) -> Tensor {
        self.to_dtype(DType::Bool).to_dtype(DType::U8).maximum(&other.to_dtype(DType::Bool)).to_dtype(DType::Bool)
    }
    /// Not true.
    pub fn logical_not(&self) -> Tensor {
        self.to_dtype(DType::Bool).to_dtype(DType::U8).eq_scalar(0.0)
    }
    /// Where the value is not a number.
    pub fn is_nan(&self) -> Tensor {
        self.ne(self)
    }
    /// Where the value is neither NaN nor infinite.
    pub fn is_finite(&self) -> Tensor {
        if !self.dtype.is_float() {
            return Tensor::full_on(self.shape(), 1.0, DType::Bool, &self.device);
        }
        self.sub(self).eq_scalar(0.0)
    }
    /// Are all elements within `rtol·|b| + atol` of each other, shapes equal, NaN nowhere? An infinity is close to itself
    /// only.
    #[track_caller]
    pub fn all_close(&self, other: &Tensor, rtol: f64, atol: f64) -> bool {
        if self.shape() != other.shape() {
            return false;
        }
        let (a, b) = (self.to_f64_vec(), other.to_f64_vec());
        // Without the test of b, the bound would be infinite where b is, and any number within it.
        a.iter().zip(&b).all(|(a, b)| a == b || (b.is_finite() && (a - b).abs() <= rtol * b.abs() + atol))
    }
}
