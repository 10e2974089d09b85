//! Double-precision functions. Accuracy comes before speed here (gradient checks run in double), so the elementary ones
//! are the standard library's; the error functions, which it lacks, are our own.

use crate::cpu::simd::Simd;

#[inline(always)]
fn poly<S: Simd, const N: usize>(x: f64, c: &[f64; N]) -> f64 {
    let mut p = c[0];
    for &c in &c[1..] {
        p = S::mul_add(p, x, c);
    }
    p
}

/// `(erf(√s)/√s − 1)` on s ∈ [0, 1]: Chebyshev interpolation of degree 12, computed at 40 digits; truncation 1.3e-19.
const SMALL: [f64; 13] = [
    5.957176147748911e-11,
    -1.1372848856791674e-09,
    1.4659775274047436e-08,
    -1.6350312701054695e-07,
    1.6461000484121368e-06,
    -1.4925595266831182e-05,
    0.0001205533111164271,
    -0.000854832698083379,
    0.0052239776248180145,
    -0.026866170645076792,
    0.11283791670954879,
    -0.3761263890318375,
    0.1283791670955126,
];

/// `erfc(t)·e^{t²}·(1 + 2t)` in u = (t − 4)/(t + 4) on t ∈ [1, 28], the variable of M. M. Shepherd and J. G. Laframboise,
/// Math. Comp. 36 (1981) 249–253: Chebyshev interpolation of degree 20, computed at 40 digits; truncation 1.9e-18.
const LARGE: [f64; 21] = [
    -2.6490729369178822e-08,
    8.981761538262737e-08,
    9.378764713111928e-08,
    -8.132213473308921e-07,
    2.779610203474889e-07,
    5.706137058391276e-06,
    -1.1214940454085914e-05,
    -2.4398796129808548e-05,
    0.0001506197652840239,
    -0.0001992566557780742,
    -0.0007577729682444181,
    0.005031969959955954,
    -0.016197734090861556,
    0.03716751553970077,
    -0.06633036581022515,
    0.09373283499822639,
    -0.10103906603636663,
    0.06809705425469556,
    0.015379652102620517,
    -0.13962111684056253,
    1.2329951186255526,
];

#[inline(always)]
fn erf_small<S: Simd>(x: f64) -> f64 {
    x + x * poly::<S, 13>(x * x, &SMALL)
}

/// erfc for t ≥ 1.
#[inline(always)]
fn erfc_large<S: Simd>(t: f64) -> f64 {
    // Below the smallest subnormal; the clamp also keeps ∞ out of the quotient.
    let t = if t > 28.0 { 28.0 } else { t };
    let g = poly::<S, 21>((t - 4.0) / (t + 4.0), &LARGE) / (1.0 + 2.0 * t);
    // t² = hi² + lo with hi² exact (26 bits), so that the exponential does not magnify the square's rounding.
    let hi = f64::from_bits(t.to_bits() & 0xffff_ffff_f800_0000);
    let lo = (t - hi) * (t + hi);
    (-hi * hi).exp() * (-lo).exp() * g
}

/// Error function `2/√π ∫₀ˣ e^{−t²} dt`: a polynomial in x² up to 1, then `1 − erfc`. Relative error below 4e-16.
#[inline(always)]
pub fn erf<S: Simd>(x: f64) -> f64 {
    let a = x.abs();
    if a < 1.0 { erf_small::<S>(x) } else { (1.0 - erfc_large::<S>(a)).copysign(x) }
}

/// Complementary error function `1 − erf(x)`, accurate in the tail as well. Relative error below 1e-15.
#[inline(always)]
pub fn erfc<S: Simd>(x: f64) -> f64 {
    let a = x.abs();
    if a < 0.5 {
        1.0 - erf_small::<S>(x)
    } else if a < 1.0 {
        if x < 0.0 { 1.0 + erf_small::<S>(a) } else { 0.5 + (0.5 - erf_small::<S>(a)) }
    } else {
        let y = erfc_large::<S>(a);
        if x < 0.0 { 2.0 - y } else { y }
    }
}

/// `1 / (1 + e^{−x})`.
#[inline(always)]
pub fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}
