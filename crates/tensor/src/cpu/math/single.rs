//! Single-precision functions that LLVM can vectorise: no branch (a condition picks one of two computed values), no
//! table, no call. The error that each docstring states is the largest found by `tests::ulp_sweep` at any
//! [`Level`](crate::cpu::level::Level), in units in the last place of the correctly rounded result.

// Coefficients are written with the digits of their source, more than a float has.
#![allow(clippy::excessive_precision)]

use crate::cpu::simd::Simd;
use std::f32::consts::LOG2_E;

/// 1.5·2²³: adding it to a float of magnitude below 2²² rounds that to an integer, left in the low bits of the sum.
const MAGIC: f32 = 12_582_912.0;
/// ln 2 in two parts (Cody and Waite): the first has 10 significant bits, so that an integer below 2¹⁴ times it is exact.
const LN2_HI: f32 = 355.0 / 512.0;
const LN2_LO: f32 = -2.121_944_4e-4;

/// Horner's scheme, the highest coefficient first.
#[inline(always)]
fn poly<S: Simd, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut p = c[0];
    let mut i = 1;
    while i < N {
        p = S::mul_add(p, x, c[i]);
        i += 1;
    }
    p
}

/// 2ⁿ for −126 ≤ n ≤ 127, built from its exponent bits.
#[inline(always)]
fn pow2i(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// n and r with x = n·ln 2 + r, |r| ≤ ½ ln 2.
#[inline(always)]
fn reduce_ln2<S: Simd>(x: f32) -> (i32, f32) {
    let t = S::mul_add(x, LOG2_E, MAGIC);
    let n = t - MAGIC;
    let r = S::mul_add(n, -LN2_LO, S::mul_add(n, -LN2_HI, x));
    ((t.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32), r)
}

/// (eʳ − 1 − r) / r² for |r| ≤ ½ ln 2: the minimax polynomial of Cephes' `expf`.
#[inline(always)]
fn exp_tail<S: Simd>(r: f32) -> f32 {
    poly::<S, 6>(r, [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_1e-1])
}

/// `eˣ = 2ⁿ·eʳ`, Cody–Waite reduction and Cephes' polynomial. Subnormal results are rounded once. Largest error 1.0 ulp.
#[inline(always)]
pub fn exp<S: Simd>(x: f32) -> f32 {
    // e^−104 rounds to 0 and e^89 to ∞; a NaN passes both comparisons.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let (n, r) = reduce_ln2::<S>(x);
    let y = S::mul_add(exp_tail::<S>(r), r * r, r) + 1.0;
    // n spans −150 … 128, more than one exponent field holds: two steps.
    let half = n >> 1;
    y * pow2i(half) * pow2i(n.wrapping_sub(half))
}

/// [`exp`] of what is not positive, in fewer steps: 2ⁿ needs one multiplication to be made, and one to become subnormal.
#[inline(always)]
fn exp_nonpositive<S: Simd>(x: f32) -> f32 {
    /// Rounds to an integer as [`MAGIC`] does, and leaves the exponent field of 2ⁿ⁺⁶⁴.
    const FIELD: f32 = MAGIC + (127 + 64) as f32;
    const TWO_TO_MINUS_64: f32 = 1.0 / 18_446_744_073_709_551_616.0;
    let x = if x < -104.0 { -104.0 } else { x };
    let t = S::mul_add(x, LOG2_E, FIELD);
    let n = t - FIELD;
    let r = S::mul_add(n, -LN2_LO, S::mul_add(n, -LN2_HI, x));
    let y = S::mul_add(exp_tail::<S>(r), r * r, r) + 1.0;
    y * f32::from_bits(t.to_bits() << 23) * TWO_TO_MINUS_64
}

/// `eˣ − 1 = 2ⁿ·(eʳ − 1) + (2ⁿ − 1)`, without the cancellation near 0. Largest error 1.6 ulp.
#[inline(always)]
pub fn expm1<S: Simd>(x: f32) -> f32 {
    let y = if x > 89.0 { 89.0 } else { x };
    let y = if y < -18.0 { -18.0 } else { y };
    let (n, r) = reduce_ln2::<S>(y);
    let q = S::mul_add(exp_tail::<S>(r), r * r, r);
    // Half the result, since 2¹²⁸ is no float.
    let s = pow2i(n.wrapping_sub(1));
    let y = 2.0 * S::mul_add(s, q, s - 0.5);
    if x.abs() < 1e-8 { x } else { y }
}

/// Natural logarithm: `x = 2ᵉ·m`, m in [√½, √2), then Cephes' `logf` polynomial in m − 1. −∞ at ±0, NaN below.
/// Largest error 0.8 ulp.
#[inline(always)]
pub fn log<S: Simd>(x: f32) -> f32 {
    let tiny = x < f32::MIN_POSITIVE;
    let scaled = if tiny { x * 8_388_608.0 } else { x };
    let bias = if tiny { -23.0 } else { 0.0 };
    const SQRT_HALF: i32 = 0x3f35_04f3;
    let bits = (scaled.to_bits() as i32).wrapping_sub(SQRT_HALF);
    let e = (bits >> 23) as f32 + bias;
    let f = f32::from_bits(((bits & 0x007f_ffff) + SQRT_HALF) as u32) - 1.0;
    let z = f * f;
    let p = poly::<S, 9>(
        f,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let y = S::mul_add(e, LN2_LO, p * f * z);
    let y = f + S::mul_add(-0.5, z, y);
    let y = S::mul_add(e, LN2_HI, y);
    let y = if x < f32::INFINITY { y } else { x };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x < 0.0 { f32::NAN } else { y }
}

/// `ln(1 + x)`: the logarithm of the rounded sum u, plus what the rounding lost, `(x − (u − 1)) / u`. Largest error
/// 1.5 ulp.
#[inline(always)]
pub fn log1p<S: Simd>(x: f32) -> f32 {
    let u = 1.0 + x;
    let lost = if x.abs() < 1.0 { x - (u - 1.0) } else { 1.0 - (u - x) };
    let y = log::<S>(u) + lost / u;
    let y = if u == 0.0 || x == f32::INFINITY { log::<S>(u) } else { y };
    if x.abs() < 1e-8 { x } else { y }
}

/// Hyperbolic tangent: Cephes' odd polynomial for |x| < 0.625, else `1 − 2e / (1 + e)` with `e = e^{−2|x|}`. Largest error
/// 1.3 ulp.
#[inline(always)]
pub fn tanh<S: Simd>(x: f32) -> f32 {
    let a = x.abs();
    let z = a * a;
    let p = poly::<S, 5>(z, [-5.704_988_7e-3, 2.063_908_9e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1]);
    let small = S::mul_add(p * z, a, a);
    let e = exp_nonpositive::<S>(-2.0 * a);
    let large = 1.0 - (e + e) / (1.0 + e);
    (if a < 0.625 { small } else { large }).copysign(x)
}

/// `1 / (1 + e^{−x})`, as `e^{x} / (1 + e^{x})` for negative x so that nothing overflows. Largest error 2.3 ulp.
#[inline(always)]
pub fn sigmoid<S: Simd>(x: f32) -> f32 {
    let e = exp_nonpositive::<S>(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// Error function: `x + x·P(x²)` for |x| < 0.92, else `1 − exp(|x|·Q(|x|))`, P and Q being minimax fits of our own
/// (weighted least squares with Lawson's iteration against 40-digit values). Largest error 1.2 ulp.
#[inline(always)]
pub fn erf<S: Simd>(x: f32) -> f32 {
    let a = x.abs();
    let p = poly::<S, 7>(
        a * a,
        [
            8.409_923_3e-5,
            -8.152_628_6e-4,
            5.201_960_3e-3,
            -2.685_979_86e-2,
            1.128_370_33e-1,
            -3.761_263_43e-1,
            1.283_791_67e-1,
        ],
    );
    let small = S::mul_add(p, a, a);
    // erf(4) rounds to 1.
    let c = if a > 4.0 { 4.0 } else { a };
    let q = poly::<S, 6>(
        c,
        [2.139_850_2e-4, -3.214_956_2e-3, 2.288_996_6e-2, -1.052_618_45e-1, -6.357_183e-1, -1.128_514_4],
    );
    let large = 1.0 - exp_nonpositive::<S>(q * c);
    (if a < 0.92 { small } else { large }).copysign(x)
}

/// The largest |x| for which [`sin`] and [`cos`] reduce accurately; beyond it they return NaN.
pub const TRIG_LIMIT: f32 = 1e8;

/// Quadrant and remainder: x = n·π/2 + r, |r| ≤ π/4, in double precision with π/2 in two parts of 33 and 53 bits.
#[inline(always)]
fn reduce_pio2<S: Simd>(x: f32) -> (i32, f32) {
    const MAGIC: f64 = 6_755_399_441_055_744.0; // 1.5·2⁵²
    // The high 25 bits of π/2, so that n·HI is exact up to n = 2²⁸.
    const HI: f64 = 1.570_796_310_901_641_8;
    const LO: f64 = 1.589_325_477_352_819_7e-8;
    let d = x as f64;
    let t = S::mul_add(d, std::f64::consts::FRAC_2_PI, MAGIC);
    let n = t - MAGIC;
    let r = S::mul_add(n, -LO, S::mul_add(n, -HI, d));
    let r = if d.abs() <= TRIG_LIMIT as f64 { r } else { f64::NAN };
    (t.to_bits() as i32, r as f32)
}

/// sin or cos of `r` (|r| ≤ π/4, Cephes' `sinf` polynomials) moved to quadrant `q`.
#[inline(always)]
fn sin_in_quadrant<S: Simd>(q: i32, r: f32) -> f32 {
    let z = r * r;
    let s = S::mul_add(poly::<S, 3>(z, [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]) * z, r, r);
    let c = poly::<S, 3>(z, [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
    let c = S::mul_add(c * z, z, S::mul_add(-0.5, z, 1.0));
    let y = if q & 1 == 0 { s } else { c };
    if q & 2 == 0 { y } else { -y }
}

/// Sine for |x| ≤ [`TRIG_LIMIT`], NaN beyond. Largest error 1.6 ulp.
#[inline(always)]
pub fn sin<S: Simd>(x: f32) -> f32 {
    let (q, r) = reduce_pio2::<S>(x);
    let y = sin_in_quadrant::<S>(q, r);
    if x.abs() < 1e-4 { x } else { y }
}

/// Cosine for |x| ≤ [`TRIG_LIMIT`], NaN beyond. Largest error 1.6 ulp.
#[inline(always)]
pub fn cos<S: Simd>(x: f32) -> f32 {
    let (q, r) = reduce_pio2::<S>(x);
    sin_in_quadrant::<S>(q.wrapping_add(1), r)
}
