//! Functions of one argument, element by element.

use crate::backend::Unary;
use crate::{DType, Tensor, ensure};

impl Tensor {
    /// `op(x)` for an op that is defined for integers too.
    #[track_caller]
    fn any_unary(&self, name: &'static str, op: Unary) -> Tensor {
        ensure!(self.dtype != DType::Bool, DType, name, "not defined for bool (cast with to_dtype)");
        self.device.backend().unary(op, self)
    }
    /// `op(x)` for an op of floats; integers and bool become f32.
    #[track_caller]
    pub(crate) fn float_unary(&self, _name: &'static str, op: Unary) -> Tensor {
        if self.dtype.is_float() {
            return self.device.backend().unary(op, self);
        }
        self.device.backend().unary(op, &self.to_dtype(DType::F32))
    }

    /// To another dtype (itself if it has it), as `as` does in Rust; anything ≠ 0 is true.
    ///
    /// Floats round. Floats to integers truncate, and what lies outside of the integers' range becomes the nearest of
    /// them (NaN becomes 0): 300.7 and −1 to u8 give 255 and 0. Integers to narrower ones wrap: 300 to u8 gives 44.
    ///
    /// What lies densely in another order of the dimensions, such as a transposed matrix, keeps it.
    pub fn to_dtype(&self, dtype: DType) -> Tensor {
        if self.dtype == dtype {
            return self.clone();
        }
        match self.dense_order() {
            Some(order) => {
                let mut inverse = vec![0; order.len()];
                order.iter().enumerate().for_each(|(i, &d)| inverse[d] = i);
                self.device.backend().cast(&self.permute_dims(&order), dtype).permute_dims(&inverse)
            }
            None => self.device.backend().cast(self, dtype),
        }
    }
    /// `min(max(x, low), high)`; NaN stays NaN. Integers with a fractional bound become f32.
    #[track_caller]
    pub fn clamp(&self, low: f64, high: f64) -> Tensor {
        ensure!(low <= high, Value, "clamp", "low {low} must not exceed high {high}");
        let whole = |bound: f64| bound.fract() == 0.0 || bound.is_infinite();
        match self.dtype {
            dtype if dtype.is_int() && !(whole(low) && whole(high)) => {
                self.float_unary("clamp", Unary::Clamp(low, high))
            }
            _ => self.any_unary("clamp", Unary::Clamp(low, high)),
        }
    }
    /// `xⁿ`, n an integer (negative only for floats).
    #[track_caller]
    pub fn powi(&self, n: i32) -> Tensor {
        if n < 0 { self.float_unary("powi", Unary::Powi(n)) } else { self.any_unary("powi", Unary::Powi(n)) }
    }
    /// `xᵖ`, p a real number.
    #[track_caller]
    pub fn powf(&self, p: f64) -> Tensor {
        self.float_unary("powf", Unary::Powf(p))
    }
    /// `x` if positive, else `α(eˣ − 1)`. Clevert et al. 2015.
    #[track_caller]
    pub fn elu(&self, alpha: f64) -> Tensor {
        self.float_unary("elu", Unary::Elu(alpha))
    }
    /// `x` if positive, else `αx`.
    #[track_caller]
    pub fn leaky_relu(&self, alpha: f64) -> Tensor {
        self.float_unary("leaky_relu", Unary::LeakyRelu(alpha))
    }
}

macro_rules! unary {
    ($kind:ident: $($(#[$doc:meta])* $name:ident $op:ident;)*) => {$(
        impl Tensor {
            $(#[$doc])*
            #[track_caller]
            pub fn $name(&self) -> Tensor {
                self.$kind(stringify!($name), Unary::$op)
            }
        }
    )*};
}
unary! {
    any_unary:
    /// `−x`.
    neg Neg;
    /// `|x|`.
    abs Abs;
    /// −1, 0 or 1; NaN stays NaN.
    sign Sign;
    /// `x²`.
    square Square;
    /// `max(x, 0)`.
    relu Relu;
    /// The largest integer not above x.
    floor Floor;
    /// The smallest integer not below x.
    ceil Ceil;
    /// To the nearest integer, halves to even.
    round Round;
}
unary! {
    float_unary:
    /// `eˣ`.
    exp Exp;
    /// `eˣ − 1`, accurate near 0.
    expm1 Expm1;
    /// Natural logarithm.
    log Log;
    /// `ln(1 + x)`, accurate near 0.
    log1p Log1p;
    /// `√x`.
    sqrt Sqrt;
    /// `1/√x`.
    rsqrt Rsqrt;
    /// `1/x`.
    recip Recip;
    /// Sine, in radians.
    sin Sin;
    /// Cosine, in radians.
    cos Cos;
    /// Hyperbolic tangent.
    tanh Tanh;
    /// The logistic function `1/(1 + e⁻ˣ)`.
    sigmoid Sigmoid;
    /// The error function `2/√π ∫₀ˣ e^(−t²) dt`.
    erf Erf;
    /// `x Φ(x)`, Φ the normal distribution function. Hendrycks & Gimpel 2016.
    gelu Gelu;
    /// The tanh approximation of [`gelu`](Tensor::gelu) that GPT-2 uses: `½x(1 + tanh(√(2/π)(x + 0.044715x³)))`.
    gelu_tanh GeluTanh;
    /// `x σ(x)`, also called swish. Ramachandran et al. 2017.
    silu Silu;
    /// `ln(1 + eˣ)`.
    softplus Softplus;
}
