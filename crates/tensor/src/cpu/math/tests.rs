//! Errors in units in the last place, over dense sweeps, at every level.

// Reference values carry all the digits they were computed with.
#![allow(clippy::excessive_precision)]

use super::*;
use crate::backend::{Binary, Unary};
use crate::cpu::elementwise::{binary_real, unary_real};
use crate::cpu::level::Level;
use crate::cpu::simd::simd_fn;

/// The distance of `got` from the exact value `want`, in units in the last place of `want` rounded to `f32`.
fn ulps(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() && want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if rounded == got {
        // An overflow or a zero of the right sign counts as exact.
        if rounded.is_infinite() || rounded == 0.0 {
            return if rounded.is_sign_positive() == got.is_sign_positive() { 0.0 } else { f64::INFINITY };
        }
    } else if rounded.is_infinite() || got.is_infinite() {
        return f64::INFINITY;
    }
    let exponent = (rounded.abs().to_bits() >> 23).max(1) as i32 - 127;
    ((got as f64 - want) / 2f64.powi(exponent - 23)).abs()
}

/// The largest error over every `step`-th float whose magnitude is at most `limit`, and where it is.
fn sweep(f: impl Fn(Level, &[f32], &mut [f32]), limit: f32, exact: fn(f64) -> f64) -> (f64, f32) {
    let step = if cfg!(debug_assertions) { 16_411 } else { 1_009 };
    let mut xs: Vec<f32> = Vec::new();
    for sign in [0u32, 1 << 31] {
        xs.extend((0..=limit.to_bits()).step_by(step).map(|b| f32::from_bits(b | sign)));
    }
    // Floats crowd near 0: a linear sweep of the part where the function bends, too.
    let bend = limit.min(110.0);
    let n = xs.len() / 4;
    xs.extend((0..n).map(|i| bend * (2.0 * i as f32 / n as f32 - 1.0)));
    xs.extend([0.0, -0.0, limit, -limit, f32::MIN_POSITIVE, -f32::MIN_POSITIVE, 1.0, -1.0, 1e-45, -1e-45]);
    let mut ys = vec![0.0; xs.len()];
    let mut worst = (0.0, 0.0);
    for level in Level::ALL {
        f(level, &xs, &mut ys);
        for (&x, &y) in xs.iter().zip(&ys) {
            let e = ulps(y, exact(x as f64));
            if e > worst.0 {
                worst = (e, x);
            }
        }
    }
    worst
}

/// The kernel of an op.
fn unary(op: Unary) -> impl Fn(Level, &[f32], &mut [f32]) {
    move |level, x, y| unary_real(level, op, x, y)
}
simd_fn! {
    /// The vector form, of which the normal distribution is made.
    fn sine[S](x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = single::sin::<S>(x));
    }
}
simd_fn! {
    fn cosine[S](x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = single::cos::<S>(x));
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
fn erf(x: f64) -> f64 {
    double::erf::<crate::cpu::simd::Portable>(x)
}

#[test]
fn ulp_sweep() {
    let inf = f32::INFINITY;
    let rows: [(&str, (f64, f32), f64); 9] = [
        ("exp", sweep(unary(Unary::Exp), inf, f64::exp), 1.1),
        ("expm1", sweep(unary(Unary::Expm1), inf, f64::exp_m1), 2.0),
        ("log", sweep(unary(Unary::Log), inf, f64::ln), 1.0),
        ("log1p", sweep(unary(Unary::Log1p), inf, f64::ln_1p), 2.0),
        ("tanh", sweep(unary(Unary::Tanh), inf, f64::tanh), 1.5),
        ("sigmoid", sweep(unary(Unary::Sigmoid), inf, sigmoid), 2.5),
        ("erf", sweep(unary(Unary::Erf), inf, erf), 1.7),
        ("sin", sweep(sine, single::TRIG_LIMIT, f64::sin), 1.8),
        ("cos", sweep(cosine, single::TRIG_LIMIT, f64::cos), 1.8),
    ];
    for (name, (ulp, x), bound) in rows {
        println!("{name:8} {ulp:.3} ulp at {x:e}");
        assert!(ulp <= bound, "{name}({x:e}): {ulp} ulp, more than {bound}");
    }
}

#[test]
fn special_values() {
    fn all(f: impl Fn(Level, &[f32], &mut [f32]), x: f32) -> [f32; 3] {
        Level::ALL.map(|l| {
            // Long enough for the vector loop and its remainder.
            let mut y = [0.0; 37];
            f(l, &[x; 37], &mut y);
            assert!(y.iter().all(|v| v.to_bits() == y[0].to_bits() || v.is_nan() && y[0].is_nan()));
            y[0]
        })
    }
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    macro_rules! check {
        ($kernel:expr => $($op:ident($x:expr) == $want:expr;)*) => {$(
            for got in all($kernel($op), $x) {
                let want: f32 = $want;
                assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                    "{}({}) = {got}, not {want}", stringify!($op), $x);
            }
        )*};
    }
    use Unary::*;
    check! { unary =>
        Exp(0.0) == 1.0; Exp(-0.0) == 1.0; Exp(inf) == inf; Exp(-inf) == 0.0; Exp(nan) == nan; Exp(88.8) == inf;
        Exp(-104.0) == 0.0; Exp(-103.5) == 1e-45;
        Expm1(0.0) == 0.0; Expm1(-0.0) == -0.0; Expm1(inf) == inf; Expm1(-inf) == -1.0; Expm1(nan) == nan; Expm1(1e-40) == 1e-40;
        Log(0.0) == -inf; Log(-0.0) == -inf; Log(1.0) == 0.0; Log(inf) == inf; Log(-1.0) == nan; Log(-inf) == nan; Log(nan) == nan;
        Log(1e-45) == (1e-45f32 as f64).ln() as f32;
        Log1p(0.0) == 0.0; Log1p(-0.0) == -0.0; Log1p(-1.0) == -inf; Log1p(-2.0) == nan; Log1p(inf) == inf; Log1p(nan) == nan;
        Tanh(0.0) == 0.0; Tanh(-0.0) == -0.0; Tanh(inf) == 1.0; Tanh(-inf) == -1.0; Tanh(nan) == nan; Tanh(1e-45) == 1e-45;
        Sigmoid(inf) == 1.0; Sigmoid(-inf) == 0.0; Sigmoid(0.0) == 0.5; Sigmoid(nan) == nan;
        Erf(0.0) == 0.0; Erf(-0.0) == -0.0; Erf(inf) == 1.0; Erf(-inf) == -1.0; Erf(nan) == nan;
        Sin(-0.0) == -0.0; Sin(inf) == nan; Sin(nan) == nan; Sin(1e9) == 1e9f64.sin() as f32; Cos(0.0) == 1.0; Cos(-3.4e38) == (-3.4e38f32 as f64).cos() as f32; Cos(-inf) == nan;
        Softplus(inf) == inf; Softplus(-inf) == 0.0; Softplus(nan) == nan; Softplus(200.0) == 200.0;
        Relu(nan) == nan; Relu(-1.0) == 0.0;
        Gelu(1e30) == 1e30; GeluTanh(1e30) == 1e30; Gelu(nan) == nan;
    }
    use Binary::*;
    let derivative = |op| move |level, x: &[f32], y: &mut [f32]| binary_real(level, op, x, &vec![1.0; x.len()], y);
    check! { derivative =>
        GeluGrad(1e30) == 1.0; GeluTanhGrad(1e30) == 1.0; GeluTanhGrad(-1e30) == 0.0; GeluTanhGrad(nan) == nan;
        SiluGrad(1e30) == 1.0;
    }
}

/// Reference values at 20 digits (mpmath).
#[test]
fn erf_in_double() {
    let cases: [(f64, f64, f64); 7] = [
        (1e-8, 1.1283791670955125599e-8, 0.99999998871620832904),
        (0.3, 0.32862675945912741619, 0.67137324054087258381),
        (0.7, 0.67780119383741844228, 0.32219880616258155772),
        (1.5, 0.96610514647531072707, 0.033894853524689272933),
        (3.0, 0.99997790950300141456, 2.2090496998585441373e-5),
        (10.0, 1.0, 2.0884875837625447570e-45),
        (26.0, 1.0, 5.6631924088561428465e-296),
    ];
    type S = crate::cpu::simd::Portable;
    for (x, erf, erfc) in cases {
        assert!((double::erf::<S>(x) - erf).abs() <= 4e-16 * erf, "erf({x}) = {:e}", double::erf::<S>(x));
        assert!((double::erf::<S>(-x) + erf).abs() <= 4e-16 * erf);
        assert!((double::erfc::<S>(x) - erfc).abs() <= 1e-15 * erfc, "erfc({x}) = {:e}", double::erfc::<S>(x));
        assert!((double::erfc::<S>(-x) - (1.0 + erf)).abs() <= 4e-16);
    }
    assert_eq!(double::erf::<S>(f64::INFINITY), 1.0);
    assert_eq!(double::erfc::<S>(f64::INFINITY), 0.0);
    assert!(double::erf::<S>(f64::NAN).is_nan() && double::erfc::<S>(f64::NAN).is_nan());
}

/// Each derivative against a central difference of its function in double, and the `f32` one against the `f64` one.
#[test]
fn activations() {
    type S = crate::cpu::simd::Portable;
    /// A name, the function and its derivative in double, both again in single precision.
    type Row = (&'static str, fn(f64) -> f64, fn(f64) -> f64, fn(f32) -> f32, fn(f32) -> f32);
    let pairs: [Row; 3] = [
        ("gelu", f64::gelu::<S>, f64::gelu_grad::<S>, f32::gelu::<S>, f32::gelu_grad::<S>),
        ("gelu_tanh", f64::gelu_tanh::<S>, f64::gelu_tanh_grad::<S>, f32::gelu_tanh::<S>, f32::gelu_tanh_grad::<S>),
        ("silu", f64::silu::<S>, f64::silu_grad::<S>, f32::silu::<S>, f32::silu_grad::<S>),
    ];
    for i in -2000..2000 {
        let x = i as f32 * 0.01 + 0.003;
        let d = x as f64;
        for (name, f, g, f32_, g32) in pairs {
            let h = 1e-4;
            let difference = (f(d + h) - f(d - h)) / (2.0 * h);
            assert!((g(d) - difference).abs() < 1e-8, "{name}'({x})");
            assert!((f32_(x) as f64 - f(d)).abs() <= 3e-7 * (1.0 + d.abs()), "{name}({x})");
            assert!((g32(x) as f64 - g(d)).abs() <= 1e-6, "{name}'({x}) in f32");
        }
        let u = d + 0.044715 * d * d * d;
        assert!((d.gelu_tanh::<S>() - 0.5 * d * (1.0 + (u * SQRT_2_OVER_PI).tanh())).abs() < 1e-14 * (1.0 + d.abs()));
        assert!((d.softplus::<S>() - d.exp().ln_1p()).abs() < 1e-14 * (1.0 + d.abs()));
    }
}
