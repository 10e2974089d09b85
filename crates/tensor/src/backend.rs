//! What a device must be able to do.
//!
//! The **required** methods are enough to run everything. The **provided** ones are fused kernels: they answer `None`
//! unless a backend has one, and the op then composes the required ones. Shapes, dtypes and indices have been checked
//! by the op before a backend is called, inputs live on this device, and every input may have any strides.

use crate::ops::optimizer::OptimizerStep;
use crate::{DType, Layout, Shape, Tensor, storage::Buffer};
use std::sync::Arc;

/// Elementwise functions of one argument; the result has the argument's dtype. All but the first group need floats.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // the names are the mathematics
pub enum Unary {
    Neg,
    Abs,
    Sign,
    Square,
    AddScalar(f64),
    MulScalar(f64),
    /// `s - x`
    RsubScalar(f64),
    /// `min(max(x, lo), hi)`; NaN stays NaN.
    Clamp(f64, f64),
    Relu,
    /// Integer power by repeated multiplication.
    Powi(i32),
    /// `x^p`, a float power.
    Powf(f64),
    /// `s / x`
    RdivScalar(f64),
    Exp,
    Expm1,
    Log,
    Log1p,
    Sqrt,
    Rsqrt,
    Recip,
    Sin,
    Cos,
    Tanh,
    Sigmoid,
    Erf,
    /// `x Φ(x)`
    Gelu,
    /// The tanh approximation.
    GeluTanh,
    /// `x σ(x)`
    Silu,
    /// `ln(1 + eˣ)`
    Softplus,
    /// `x` if positive, else `α(eˣ - 1)`
    Elu(f64),
    /// `x` if positive, else `αx`
    LeakyRelu(f64),
    Floor,
    Ceil,
    /// To the nearest integer, halves to even.
    Round,
}

/// Elementwise functions of two arguments of one dtype and shape.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// Remainder with the divisor's sign.
    Rem,
    Pow,
    Max,
    Min,
    Atan2,
    /// `f(x, g) = g · relu'(x)`
    ReluGrad,
    /// `f(y, g) = g (1 - y²)`, `y = tanh x`
    TanhGrad,
    /// `f(y, g) = g y (1 - y)`, `y = σ(x)`
    SigmoidGrad,
    /// `f(x, g) = g · gelu'(x)`
    GeluGrad,
    /// `f(x, g) = g · gelu_tanh'(x)`
    GeluTanhGrad,
    /// `f(x, g) = g · silu'(x)`
    SiluGrad,
}

/// Elementwise comparisons; the result is bool. NaN is unequal to everything.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// Reductions. The result has the argument's dtype, but for sums of integers and bool (i64) and `Any`/`All` (bool).
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Reduce {
    Sum,
    Prod,
    /// NaN wins.
    Max,
    /// NaN wins.
    Min,
    Any,
    All,
}

/// What random numbers follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Uniform on `[low, high)`.
    Uniform {
        /// Smallest value.
        low: f64,
        /// Bound.
        high: f64,
    },
    /// The normal distribution.
    Normal {
        /// Mean μ.
        mean: f64,
        /// Standard deviation σ.
        std: f64,
    },
    /// 1 with probability `p`, else 0.
    Bernoulli {
        /// Probability of 1.
        p: f64,
    },
    /// Integers uniform on `[low, high)`.
    Integers {
        /// Smallest value.
        low: i64,
        /// Bound.
        high: i64,
    },
}

/// A device's memory and kernels. See the module's documentation.
pub trait Backend: Send + Sync + 'static {
    /// Kind and index: `("cpu", 0)`, `("cuda", 1)`.
    fn id(&self) -> (&'static str, usize);
    /// For people: "CPU, 2 threads, AVX-512".
    fn description(&self) -> String;
    /// Waits until all work that was handed to the device is done.
    fn synchronize(&self) {}

    /// Copies bytes from the host into new memory.
    fn upload(&self, bytes: &[u8]) -> Arc<dyn Buffer>;
    /// Copies memory to the host.
    fn download(&self, buffer: &dyn Buffer) -> Vec<u8>;

    /// A new tensor, every element `value`.
    fn full(&self, shape: &Shape, dtype: DType, value: f64) -> Tensor;
    /// A row-major copy.
    fn copy(&self, x: &Tensor) -> Tensor;
    /// `dst[region] = src`: `region` is a layout inside `dst`'s storage with `src`'s shape. `dst` is not shared.
    fn write(&self, dst: &mut Tensor, region: &Layout, src: &Tensor);
    /// To another dtype, as `as` does in Rust (≠ 0 for bool).
    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor;

    /// Elementwise, one argument.
    fn unary(&self, op: Unary, x: &Tensor) -> Tensor;
    /// Elementwise, two arguments of one dtype and shape.
    fn binary(&self, op: Binary, a: &Tensor, b: &Tensor) -> Tensor;
    /// `dst = op(dst, src)` where `dst` is a row-major tensor that nobody else holds, of `src`'s shape and dtype.
    fn binary_assign(&self, op: Binary, dst: &mut Tensor, src: &Tensor) {
        *dst = self.binary(op, dst, src);
    }
    /// Elementwise comparison of two arguments of one dtype and shape.
    fn compare(&self, op: Compare, a: &Tensor, b: &Tensor) -> Tensor;
    /// `if condition { a } else { b }` elementwise; one shape.
    fn select(&self, condition: &Tensor, a: &Tensor, b: &Tensor) -> Tensor;

    /// Reduces the dimensions `dims` (sorted) to extent 1.
    fn reduce(&self, op: Reduce, x: &Tensor, dims: &[usize]) -> Tensor;
    /// Index (i64) of the largest or smallest element along `dim`, which becomes extent 1; the first on ties, NaN wins.
    fn arg_reduce(&self, largest: bool, x: &Tensor, dim: usize) -> Tensor {
        unimplemented!()
    }
    /// Running sum along `dim`.
    fn cumsum(&self, x: &Tensor, dim: usize) -> Tensor {
        unimplemented!()
    }
    /// Stable sort along `dim`: values and i64 indices. NaN counts as largest.
    fn sort(&self, x: &Tensor, dim: usize, descending: bool) -> (Tensor, Tensor) {
        unimplemented!()
    }

    /// `[…, M, K] × […, K, N]`: equal leading dimensions, one dtype.
    fn matmul(&self, a: &Tensor, b: &Tensor) -> Tensor;

    /// `out[…, i, …] = x[…, index[…, i, …], …]`.
    fn gather(&self, x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
        unimplemented!()
    }
    /// `out = x; out[…, index[…, i, …], …] += src[…, i, …]`.
    fn scatter_add(&self, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
        unimplemented!()
    }
    /// Whole slices `index[j]` (1-D) along `dim`.
    fn index_select(&self, x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
        unimplemented!()
    }
    /// `out = x; out[…, index[j], …] += src[…, j, …]` (1-D index).
    fn index_add(&self, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
        unimplemented!()
    }
    /// Smallest and largest value of an i64 tensor that is not empty: ops check indices with it.
    fn index_range(&self, index: &Tensor) -> (i64, i64) {
        unimplemented!()
    }

    /// Random numbers from the counter-based generator: element `i` depends on `(seed, offset, i)` only.
    fn random(&self, distribution: Distribution, shape: &Shape, dtype: DType, seed: u64, offset: u64) -> Tensor {
        unimplemented!()
    }

    /// One optimiser step in place: `p` (f32 or f64) and `state` are row-major and not shared, `g` is row-major, and all
    /// have one shape and dtype. False if there is no kernel; nothing has changed then.
    fn optimizer_step(&self, step: &OptimizerStep, p: &mut Tensor, g: &Tensor, state: &mut [Tensor]) -> bool {
        let _ = (step, p, g, state);
        false
    }
}
