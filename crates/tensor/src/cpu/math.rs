//! Elementary and activation functions for vector loops.
//!
//! [`Real`] is what a row kernel is generic over: `f32` or `f64`, with every function as `T::exp::<S>(x)`, `S` being the
//! level the kernel is compiled for. The `f32` ones ([`single`]) vectorise; the `f64` ones ([`double`]) are accurate.

pub mod double;
pub mod single;

use super::simd::{MulAdd, Simd};
use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

/// A floating-point type that the CPU kernels compute in: `f32` or `f64`. Half types are converted to `f32` first.
pub trait Real:
    MulAdd
    + Copy
    + Debug
    + Display
    + Default
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Sum
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// +∞.
    const INFINITY: Self;
    /// −∞.
    const NEG_INFINITY: Self;
    /// Not a number.
    const NAN: Self;
    /// The gap between 1 and the next number.
    const EPSILON: Self;

    /// The nearest number of this type.
    fn from_f64(x: f64) -> Self;
    /// The same number in double precision.
    fn to_f64(self) -> f64;
    /// `n` rounded to this type.
    #[inline(always)]
    fn from_usize(n: usize) -> Self {
        Self::from_f64(n as f64)
    }
    /// |x|.
    fn abs(self) -> Self;
    /// √x, correctly rounded.
    fn sqrt(self) -> Self;
    /// Whether this is not a number.
    fn is_nan(self) -> bool;
    /// The larger of two; NaN if either is (as PyTorch's `maximum`, unlike IEEE's maxNum).
    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        if other > self || other.is_nan() { other } else { self }
    }
    /// The smaller of two; NaN if either is.
    #[inline(always)]
    fn minimum(self, other: Self) -> Self {
        if other < self || other.is_nan() { other } else { self }
    }

    /// eˣ.
    fn exp<S: Simd>(self) -> Self;
    /// eˣ − 1.
    fn expm1<S: Simd>(self) -> Self;
    /// Natural logarithm.
    fn log<S: Simd>(self) -> Self;
    /// ln(1 + x).
    fn log1p<S: Simd>(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh<S: Simd>(self) -> Self;
    /// 1 / (1 + e^{−x}).
    fn sigmoid<S: Simd>(self) -> Self;
    /// The error function.
    fn erf<S: Simd>(self) -> Self;
    /// Sine. The `f32` one is NaN beyond [`single::TRIG_LIMIT`].
    fn sin<S: Simd>(self) -> Self;
    /// Cosine. The `f32` one is NaN beyond [`single::TRIG_LIMIT`].
    fn cos<S: Simd>(self) -> Self;
    /// The normal distribution function Φ(x) = ½·(1 + erf(x/√2)).
    fn normal_cdf<S: Simd>(self) -> Self;

    /// ln(1 + eˣ) = max(x, 0) + ln(1 + e^{−|x|}).
    #[inline(always)]
    fn softplus<S: Simd>(self) -> Self {
        let positive = if self > Self::ZERO { self } else { Self::ZERO };
        positive + (-self.abs()).exp::<S>().log1p::<S>()
    }

    /// x·Φ(x), the exact form (Hendrycks and Gimpel 2016, arXiv:1606.08415).
    #[inline(always)]
    fn gelu<S: Simd>(self) -> Self {
        self * self.normal_cdf::<S>()
    }

    /// d gelu / dx = Φ(x) + x·φ(x), φ(x) = e^{−x²/2} / √(2π).
    #[inline(always)]
    fn gelu_grad<S: Simd>(self) -> Self {
        let density = (self * self * Self::from_f64(-0.5)).exp::<S>() * Self::from_f64(FRAC_1_SQRT_2PI);
        S::mul_add(self, density, self.normal_cdf::<S>())
    }

    /// x·½·(1 + tanh u) = x·σ(2u) with u = √(2/π)·(x + 0.044715·x³), the approximation that GPT-2 uses.
    #[inline(always)]
    fn gelu_tanh<S: Simd>(self) -> Self {
        self * gelu_tanh_inner::<S, Self>(self).sigmoid::<S>()
    }

    /// d gelu_tanh / dx = s + x·s·(1 − s)·2u′ with s = σ(2u), u′ = √(2/π)·(1 + 3·0.044715·x²).
    #[inline(always)]
    fn gelu_tanh_grad<S: Simd>(self) -> Self {
        let (s, complement) = sigmoid_pair::<S, Self>(gelu_tanh_inner::<S, Self>(self));
        // s·(1 − s) is 0 long before x² overflows: without the bound that would be 0·∞.
        let x = clamp(self, Self::from_f64(100.0));
        let slope =
            S::mul_add(x * x, Self::from_f64(6.0 * GELU_CUBIC * SQRT_2_OVER_PI), Self::from_f64(2.0 * SQRT_2_OVER_PI));
        S::mul_add(x * (s * complement), slope, s)
    }

    /// x·σ(x), also known as swish.
    #[inline(always)]
    fn silu<S: Simd>(self) -> Self {
        self * self.sigmoid::<S>()
    }

    /// d silu / dx = σ(x)·(1 + x·(1 − σ(x))).
    #[inline(always)]
    fn silu_grad<S: Simd>(self) -> Self {
        let (s, complement) = sigmoid_pair::<S, Self>(self);
        s * S::mul_add(self, complement, Self::ONE)
    }
}

const FRAC_1_SQRT_2PI: f64 = 0.398_942_280_401_432_7;
const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044_715;

/// x bounded to ±limit; NaN stays.
#[inline(always)]
fn clamp<T: Real>(x: T, limit: T) -> T {
    let x = if x > limit { limit } else { x };
    if x < -limit { -limit } else { x }
}

/// σ(x) and 1 − σ(x) = σ(−x), neither with cancellation.
#[inline(always)]
fn sigmoid_pair<S: Simd, T: Real>(x: T) -> (T, T) {
    let e = (-x.abs()).exp::<S>();
    let (large, small) = (T::ONE / (T::ONE + e), e / (T::ONE + e));
    if x < T::ZERO { (small, large) } else { (large, small) }
}

/// 2u of the tanh approximation of gelu.
#[inline(always)]
fn gelu_tanh_inner<S: Simd, T: Real>(x: T) -> T {
    let c = S::mul_add(x * x, T::from_f64(2.0 * SQRT_2_OVER_PI * GELU_CUBIC), T::from_f64(2.0 * SQRT_2_OVER_PI));
    x * c
}

macro_rules! basics {
    ($t:ident) => {
        const ZERO: Self = 0.0;
        const ONE: Self = 1.0;
        const INFINITY: Self = $t::INFINITY;
        const NEG_INFINITY: Self = $t::NEG_INFINITY;
        const NAN: Self = $t::NAN;
        const EPSILON: Self = $t::EPSILON;
        #[inline(always)]
        fn from_f64(x: f64) -> Self {
            x as $t
        }
        #[inline(always)]
        fn to_f64(self) -> f64 {
            self as f64
        }
        #[inline(always)]
        fn abs(self) -> Self {
            $t::abs(self)
        }
        #[inline(always)]
        fn sqrt(self) -> Self {
            $t::sqrt(self)
        }
        #[inline(always)]
        #[allow(clippy::eq_op)]
        fn is_nan(self) -> bool {
            self != self
        }
    };
}

macro_rules! calls {
    ($($name:ident => $path:expr;)*) => {$(
        #[inline(always)]
        fn $name<S: Simd>(self) -> Self {
            $path(self)
        }
    )*};
}

impl Real for f32 {
    basics!(f32);
    calls! {
        exp => single::exp::<S>;
        expm1 => single::expm1::<S>;
        log => single::log::<S>;
        log1p => single::log1p::<S>;
        tanh => single::tanh::<S>;
        sigmoid => single::sigmoid::<S>;
        erf => single::erf::<S>;
        sin => single::sin::<S>;
        cos => single::cos::<S>;
    }
    #[inline(always)]
    fn normal_cdf<S: Simd>(self) -> Self {
        S::mul_add(0.5, single::erf::<S>(self * std::f32::consts::FRAC_1_SQRT_2), 0.5)
    }
}

impl Real for f64 {
    basics!(f64);
    calls! {
        exp => f64::exp;
        expm1 => f64::exp_m1;
        log => f64::ln;
        log1p => f64::ln_1p;
        tanh => f64::tanh;
        sigmoid => double::sigmoid;
        erf => double::erf::<S>;
        sin => f64::sin;
        cos => f64::cos;
    }
    #[inline(always)]
    fn normal_cdf<S: Simd>(self) -> Self {
        0.5 * double::erfc::<S>(self * -std::f64::consts::FRAC_1_SQRT_2)
    }
}

#[cfg(test)]
mod tests;
