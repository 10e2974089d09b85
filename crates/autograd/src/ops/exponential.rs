//! Exponentials and logarithms.

use super::unary::unary;

unary! {
    /// `eˣ`; `d eˣ/dx = eˣ`.
    Exp exp() output |y, g| g * y;
    /// `eˣ − 1`, accurate near 0; the derivative is `eˣ = y + 1`.
    Expm1 expm1() output |y, g| g * (y + 1.0);
    /// Natural logarithm; `d ln(x)/dx = 1/x`.
    Log log() input |x, g| g / x;
    /// `ln(1 + x)`, accurate near 0; the derivative is `1/(1 + x)`.
    Log1p log1p() input |x, g| g / (x + 1.0);
    /// The error function `2/√π ∫₀ˣ e^(−t²) dt`; the derivative is `2/√π e^(−x²)`.
    Erf erf() input |x, g| g * ((-x.square()).exp() * std::f64::consts::FRAC_2_SQRT_PI);
}
