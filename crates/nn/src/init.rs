//! Initial values of parameters.
//!
//! Each function gives a fresh f32 tensor on the CPU; [`fill`] puts one into a parameter, in the parameter's own dtype and
//! on its device. "Fan" counts what meets in one number: for a weight `[out, in, k…]` fan-in is `in · Πk` and fan-out
//! `out · Πk`.
//!
//! ```
//! use ferrograd_nn::{Linear, init};
//! let layer = Linear::new(64, 32);
//! init::fill(&layer.weight, |shape| init::xavier_uniform(shape, 1.0));
//! ```

use crate::Param;
use ferrograd_tensor::{Shape, Tensor, ensure};

/// Puts `init(shape)` into `param`, in its dtype and on its device.
#[track_caller]
pub fn fill(param: &Param, init: impl FnOnce(&Shape) -> Tensor) {
    let old = param.tensor();
    let new = init(old.shape());
    ensure!(
        new.shape() == old.shape(),
        Shape,
        "init",
        "the initial value has shape {}, the parameter {}",
        new.shape(),
        old.shape()
    );
    param.set(new.to_dtype(old.dtype()).to_device(&old.device()));
}

/// All 0.
pub fn zeros(shape: impl Into<Shape>) -> Tensor {
    Tensor::zeros(shape)
}
/// All 1.
pub fn ones(shape: impl Into<Shape>) -> Tensor {
    Tensor::ones(shape)
}
/// All `value`.
pub fn constant(shape: impl Into<Shape>, value: f64) -> Tensor {
    Tensor::full(shape, value)
}
/// Uniform in `[low, high)`.
#[track_caller]
pub fn uniform(shape: impl Into<Shape>, low: f64, high: f64) -> Tensor {
    Tensor::uniform(shape, low, high)
}
/// Normal with the given mean and standard deviation.
#[track_caller]
pub fn normal(shape: impl Into<Shape>, mean: f64, std: f64) -> Tensor {
    Tensor::normal(shape, mean, std)
}
/// 1 on the diagonal of a matrix `[rows, columns]`, 0 elsewhere.
#[track_caller]
pub fn eye(shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    ensure!(shape.rank() == 2, Shape, "init::eye", "expected a matrix, got {shape}");
    let columns = shape[1].max(1);
    Tensor::from_vec((0..shape.numel()).map(|i| (i / columns == i % columns) as u8 as f32).collect(), shape)
}

/// Normal with the given mean and standard deviation, conditioned on lying in `[low, high]`.
///
/// By the inverse of the distribution function: `x = mean + std · Φ⁻¹(u)`, u uniform in
/// `[Φ((low − mean)/std), Φ((high − mean)/std)]`.
///
/// # Panics
/// If `std` is not positive, or `low` is not below `high`.
#[track_caller]
pub fn truncated_normal(shape: impl Into<Shape>, mean: f64, std: f64, low: f64, high: f64) -> Tensor {
    ensure!(std > 0.0, Value, "init::truncated_normal", "the standard deviation {std} must be positive");
    ensure!(low < high, Value, "init::truncated_normal", "the bounds must be in order, got {low} and {high}");
    let cdf = |x: f64| {
        let z = Tensor::scalar((x - mean) / std * std::f64::consts::FRAC_1_SQRT_2);
        0.5 * (1.0 + z.erf().item::<f64>())
    };
    let (from, to) = (cdf(low), cdf(high));
    let shape = shape.into();
    let uniform = Tensor::rand_on(&shape, ferrograd_tensor::DType::F64, &ferrograd_tensor::Device::CPU);
    let value = |u: f64| (mean + std * normal_quantile(from + (to - from) * u)).clamp(low, high) as f32;
    Tensor::from_vec(uniform.to_vec::<f64>().into_iter().map(value).collect(), shape)
}

/// `Φ⁻¹(p)`: P. J. Acklam's rational approximation (2003), relative error below 1.2 · 10⁻⁹.
fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 6] = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 5] = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416, 1.0];
    let horner = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, c| sum * x + c);
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    const TAIL: f64 = 0.02425;
    if p < TAIL {
        let q = (-2.0 * p.ln()).sqrt();
        horner(&C, q) / horner(&D, q)
    } else if p > 1.0 - TAIL {
        let q = (-2.0 * (1.0 - p).ln()).sqrt();
        -horner(&C, q) / horner(&D, q)
    } else {
        let q = p - 0.5;
        q * horner(&A, q * q) / horner(&B, q * q)
    }
}

/// Which fan keeps its variance: forward (in) or backward (out).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FanMode {
    /// Of the activations, forward.
    #[default]
    FanIn,
    /// Of the gradients, backward.
    FanOut,
}

/// What follows the layer: it decides the gain.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Nonlinearity {
    /// Nothing: gain 1.
    Linear,
    /// `σ`: gain 1.
    Sigmoid,
    /// `tanh`: gain 5/3.
    Tanh,
    /// `max(0, x)`: gain √2.
    #[default]
    Relu,
    /// Leaky ReLU with this slope a: gain `√(2/(1 + a²))`.
    LeakyRelu(f64),
    /// Self-normalising ELU: gain 3/4.
    Selu,
}
impl Nonlinearity {
    /// The factor by which weights are larger than for a linear layer (PyTorch's `calculate_gain`).
    pub fn gain(self) -> f64 {
        match self {
            Nonlinearity::Linear | Nonlinearity::Sigmoid => 1.0,
            Nonlinearity::Tanh => 5.0 / 3.0,
            Nonlinearity::Relu => 2f64.sqrt(),
            Nonlinearity::LeakyRelu(a) => (2.0 / (1.0 + a * a)).sqrt(),
            Nonlinearity::Selu => 0.75,
        }
    }
}

/// Fan-in and fan-out of a weight `[out, in, k…]`.
///
/// # Panics
/// If it has fewer than two dimensions.
#[track_caller]
pub fn fans(shape: &Shape) -> (usize, usize) {
    ensure!(shape.rank() >= 2, Shape, "init", "fans need at least two dimensions, got {shape}");
    let field: usize = shape[2..].iter().product();
    (shape[1] * field, shape[0] * field)
}

/// Uniform in ±`gain · √(6/(fan_in + fan_out))`. X. Glorot, Y. Bengio 2010.
#[track_caller]
pub fn xavier_uniform(shape: impl Into<Shape>, gain: f64) -> Tensor {
    let shape = shape.into();
    let (i, o) = fans(&shape);
    symmetric(shape, gain * (6.0 / (i + o).max(1) as f64).sqrt())
}
/// Normal with standard deviation `gain · √(2/(fan_in + fan_out))`. X. Glorot, Y. Bengio 2010.
#[track_caller]
pub fn xavier_normal(shape: impl Into<Shape>, gain: f64) -> Tensor {
    let shape = shape.into();
    let (i, o) = fans(&shape);
    Tensor::normal(shape, 0.0, gain * (2.0 / (i + o).max(1) as f64).sqrt())
}
/// Uniform in ±`gain · √(3/fan)`. K. He, X. Zhang, S. Ren, J. Sun 2015.
#[track_caller]
pub fn kaiming_uniform(shape: impl Into<Shape>, mode: FanMode, nonlinearity: Nonlinearity) -> Tensor {
    let shape = shape.into();
    let bound = nonlinearity.gain() * (3.0 / fan(&shape, mode)).sqrt();
    symmetric(shape, bound)
}
/// Normal with standard deviation `gain / √fan`. K. He, X. Zhang, S. Ren, J. Sun 2015.
#[track_caller]
pub fn kaiming_normal(shape: impl Into<Shape>, mode: FanMode, nonlinearity: Nonlinearity) -> Tensor {
    let shape = shape.into();
    let std = nonlinearity.gain() / fan(&shape, mode).sqrt();
    Tensor::normal(shape, 0.0, std)
}
#[track_caller]
fn fan(shape: &Shape, mode: FanMode) -> f64 {
    let (i, o) = fans(shape);
    (if mode == FanMode::FanIn { i } else { o }).max(1) as f64
}
/// Uniform in ±`bound`.
#[track_caller]
pub(crate) fn symmetric(shape: impl Into<Shape>, bound: f64) -> Tensor {
    Tensor::uniform(shape, -bound, bound)
}
/// PyTorch's default for the bias, and by `kaiming_uniform(a = √5)` for the weight, of linear and convolution layers:
/// uniform in ±`1/√fan_in`.
pub(crate) fn by_fan_in(shape: impl Into<Shape>, fan_in: usize) -> Tensor {
    symmetric(shape, if fan_in == 0 { 0.0 } else { 1.0 / (fan_in as f64).sqrt() })
}

/// A (semi-)orthogonal matrix times `gain`: rows or columns, whichever are fewer, are orthonormal. Dimensions after the
/// first count as one. A. Saxe, J. McClelland, S. Ganguli 2013.
///
/// Q of the QR decomposition (Householder, in f64) of a matrix of standard normal numbers, each column times the sign of
/// R's diagonal, which makes Q uniform (F. Mezzadri 2007).
#[track_caller]
pub fn orthogonal(shape: impl Into<Shape>, gain: f64) -> Tensor {
    let shape = shape.into();
    ensure!(shape.rank() >= 2, Shape, "init::orthogonal", "needs at least two dimensions, got {shape}");
    let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
    let (m, n) = (rows.max(columns), rows.min(columns));
    let random = Tensor::randn_on([m, n], ferrograd_tensor::DType::F64, &ferrograd_tensor::Device::CPU);
    let q = orthonormal_columns(random.to_vec(), m, n);
    let at = |r: usize, c: usize| if rows >= columns { q[r * n + c] } else { q[c * n + r] };
    let values = (0..shape.numel()).map(|i| (gain * at(i / columns, i % columns)) as f32).collect();
    Tensor::from_vec(values, shape)
}

/// The `m × n` matrix Q (n ≤ m) of `a = Q R` with R's diagonal positive.
fn orthonormal_columns(mut a: Vec<f64>, m: usize, n: usize) -> Vec<f64> {
    // Householder: H_k = I − 2 v vᵀ/(vᵀv) makes column k zero below the diagonal; Q = H_0 … H_{n−1}.
    let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(n);
    let mut signs = Vec::with_capacity(n);
    let reflect = |v: &[f64], k: usize, a: &mut [f64], from: usize| {
        let square: f64 = v.iter().map(|x| x * x).sum();
        if square == 0.0 {
            return;
        }
        for c in from..n {
            let dot: f64 = v.iter().enumerate().map(|(i, x)| x * a[(k + i) * n + c]).sum();
            let factor = 2.0 * dot / square;
            v.iter().enumerate().for_each(|(i, x)| a[(k + i) * n + c] -= factor * x);
        }
    };
    for k in 0..n {
        let mut v: Vec<f64> = (k..m).map(|r| a[r * n + k]).collect();
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let diagonal = if v[0] > 0.0 { -norm } else { norm };
        v[0] -= diagonal;
        reflect(&v, k, &mut a, k);
        vectors.push(v);
        signs.push(if diagonal < 0.0 { -1.0 } else { 1.0 });
    }
    let mut q = vec![0.0; m * n];
    (0..n).for_each(|k| q[k * n + k] = signs[k]);
    for k in (0..n).rev() {
        reflect(&vectors[k], k, &mut q, 0);
    }
    q
}

#[cfg(test)]
mod tests {
    use super::normal_quantile;

    /// Against tables of the normal distribution.
    #[test]
    fn quantiles() {
        for (p, z) in [
            (0.5, 0.0),
            (0.975, 1.959963984540054),
            (0.001, -3.090232306167813),
            (0.99, 2.3263478740408408),
            (0.02, -2.053748910631823),
            (0.6, 0.2533471031357997),
        ] {
            assert!((normal_quantile(p) - z).abs() < 1e-8, "{p}: {} ≠ {z}", normal_quantile(p));
        }
    }
}
