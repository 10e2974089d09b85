//! Elementwise functions over contiguous slices, vectorised.

use super::level::{Level, level};
use super::math::Real;
use super::math::single::TRIG_LIMIT;
use super::simd::{Simd, simd_fn};

/// A function of one number, as a type: what [`map`] is compiled for.
pub trait UnaryOp: 'static {
    /// Its value.
    fn eval<S: Simd, T: Real>(x: T) -> T;
    /// Its value where [`UnaryOp::eval`] declines by returning NaN for a number: nothing, for most.
    #[inline(always)]
    fn rescue<T: Real>(_x: T) -> Option<T> {
        None
    }
    /// Whether [`UnaryOp::rescue`] has to be asked.
    const PARTIAL: bool = false;
}

macro_rules! ops {
    ($($(#[$meta:meta])* $name:ident => |$x:ident| $body:expr;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl UnaryOp for $name {
            #[inline(always)]
            fn eval<S: Simd, T: Real>($x: T) -> T {
                $body
            }
        }
    )*};
}

ops! {
    /// −x.
    Neg => |x| -x;
    /// |x|.
    Abs => |x| x.abs();
    /// √x.
    Sqrt => |x| x.sqrt();
    /// 1/√x.
    Rsqrt => |x| T::ONE / x.sqrt();
    /// 1/x.
    Recip => |x| T::ONE / x;
    /// x².
    Square => |x| x * x;
    /// eˣ.
    Exp => |x| x.exp::<S>();
    /// 2ˣ.
    Exp2 => |x| x.exp2::<S>();
    /// eˣ − 1.
    Expm1 => |x| x.expm1::<S>();
    /// Natural logarithm.
    Log => |x| x.log::<S>();
    /// ln(1 + x).
    Log1p => |x| x.log1p::<S>();
    /// Hyperbolic tangent.
    Tanh => |x| x.tanh::<S>();
    /// 1 / (1 + e^{−x}).
    Sigmoid => |x| x.sigmoid::<S>();
    /// Error function.
    Erf => |x| x.erf::<S>();
    /// ln(1 + eˣ).
    Softplus => |x| x.softplus::<S>();
    /// max(x, 0); NaN stays.
    Relu => |x| if x < T::ZERO { T::ZERO } else { x };
    /// x·Φ(x).
    Gelu => |x| x.gelu::<S>();
    /// Derivative of [`Gelu`].
    GeluGrad => |x| x.gelu_grad::<S>();
    /// Tanh approximation of [`Gelu`].
    GeluTanh => |x| x.gelu_tanh::<S>();
    /// Derivative of [`GeluTanh`].
    GeluTanhGrad => |x| x.gelu_tanh_grad::<S>();
    /// x·σ(x).
    Silu => |x| x.silu::<S>();
    /// Derivative of [`Silu`].
    SiluGrad => |x| x.silu_grad::<S>();
}

/// Sine, accurate for every finite x.
#[derive(Clone, Copy, Debug)]
pub struct Sin;
/// Cosine, accurate for every finite x.
#[derive(Clone, Copy, Debug)]
pub struct Cos;

macro_rules! trig {
    ($name:ident, $f:ident) => {
        impl UnaryOp for $name {
            const PARTIAL: bool = true;
            #[inline(always)]
            fn eval<S: Simd, T: Real>(x: T) -> T {
                x.$f::<S>()
            }
            #[inline(always)]
            fn rescue<T: Real>(x: T) -> Option<T> {
                // A float of this size is exact in double, and the system's library reduces any argument.
                (x.abs() > T::from_f64(TRIG_LIMIT as f64)).then(|| T::from_f64(x.to_f64().$f()))
            }
        }
    };
}
trig!(Sin, sin);
trig!(Cos, cos);

simd_fn! {
    fn map_kernel[S]<T: Real, O: UnaryOp>(x: &[T], y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = O::eval::<S, T>(x);
        }
    }
}

simd_fn! {
    fn map_in_place_kernel[S]<T: Real, O: UnaryOp>(x: &mut [T]) {
        for x in x {
            *x = O::eval::<S, T>(*x);
        }
    }
}

/// `y = f(x)`, elementwise; the slices have one length. Runs on the calling thread: a caller that wants more splits the
/// slices.
pub fn map<O: UnaryOp, T: Real>(x: &[T], y: &mut [T]) {
    map_at::<O, T>(level(), x, y);
}

/// [`map`] at a given level.
pub fn map_at<O: UnaryOp, T: Real>(level: Level, x: &[T], y: &mut [T]) {
    assert_eq!(x.len(), y.len());
    map_kernel::<T, O>(level, x, y);
    if O::PARTIAL {
        for (y, &x) in y.iter_mut().zip(x) {
            if let Some(v) = O::rescue(x) {
                *y = v;
            }
        }
    }
}

/// `x = f(x)`, elementwise.
pub fn map_in_place<O: UnaryOp, T: Real>(x: &mut [T]) {
    if !O::PARTIAL {
        return map_in_place_kernel::<T, O>(level(), x);
    }
    let mut buffer = [T::ZERO; 1024];
    for x in x.chunks_mut(buffer.len()) {
        let y = &mut buffer[..x.len()];
        map::<O, T>(x, y);
        x.copy_from_slice(y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_level() {
        for level in Level::ALL {
            for n in [0, 1, 7, 15, 16, 17, 31, 63, 64, 65, 1000] {
                let x: Vec<f32> = (0..n).map(|i| (i as f32 - 400.0) / 50.0).collect();
                let mut y = vec![0.0; n];
                map_at::<Silu, f32>(level, &x, &mut y);
                for (x, y) in x.iter().zip(&y) {
                    let want = *x as f64 / (1.0 + (-*x as f64).exp());
                    assert!((*y as f64 - want).abs() <= 3e-7 * want.abs(), "{level:?} {x} {y} {want}");
                }
                let mut z = x.clone();
                map_in_place::<Silu, f32>(&mut z);
                assert!(z.iter().zip(&y).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()));
            }
        }
    }

    #[test]
    fn trigonometry_of_huge_arguments() {
        let x = [1e9f32, -3.4e38, 1e8, 123456.79, f32::INFINITY, f32::NAN];
        let mut s = [0.0; 6];
        map::<Sin, f32>(&x, &mut s);
        for i in 0..4 {
            assert!((s[i] as f64 - (x[i] as f64).sin()).abs() < 1e-7, "{}", x[i]);
        }
        assert!(s[4].is_nan() && s[5].is_nan());
        let mut c = x;
        map_in_place::<Cos, f32>(&mut c);
        assert!((c[1] as f64 - (x[1] as f64).cos()).abs() < 1e-7);
    }
}
