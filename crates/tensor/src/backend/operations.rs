//! What the required methods are told to do: functions, comparisons, reductions, distributions.

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
    /// `x / s`: one rounding, where multiplying by 1/s would be two.
    DivScalar(f64),
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

/// The name of each variant, for profiles.
macro_rules! names {
    ($($t:ident { $($variant:pat => $name:literal),* $(,)? })*) => {$(
        impl $t {
            /// The operation's name.
            pub fn name(&self) -> &'static str {
                use $t::*;
                match self {
                    $($variant => $name),*
                }
            }
        }
    )*};
}
names! {
    Unary {
        Neg => "neg", Abs => "abs", Sign => "sign", Square => "square", AddScalar(..) => "add_scalar",
        MulScalar(..) => "mul_scalar", DivScalar(..) => "div_scalar", RsubScalar(..) => "rsub_scalar", Clamp(..) => "clamp", Relu => "relu",
        Powi(..) => "powi", Powf(..) => "powf", RdivScalar(..) => "rdiv_scalar", Exp => "exp", Expm1 => "expm1",
        Log => "log", Log1p => "log1p", Sqrt => "sqrt", Rsqrt => "rsqrt", Recip => "recip", Sin => "sin",
        Cos => "cos", Tanh => "tanh", Sigmoid => "sigmoid", Erf => "erf", Gelu => "gelu", GeluTanh => "gelu_tanh",
        Silu => "silu", Softplus => "softplus", Elu(..) => "elu", LeakyRelu(..) => "leaky_relu", Floor => "floor",
        Ceil => "ceil", Round => "round",
    }
    Binary {
        Add => "add", Sub => "sub", Mul => "mul", Div => "div", Rem => "rem", Pow => "pow", Max => "max",
        Min => "min", Atan2 => "atan2", ReluGrad => "relu_grad", TanhGrad => "tanh_grad",
        SigmoidGrad => "sigmoid_grad", GeluGrad => "gelu_grad", GeluTanhGrad => "gelu_tanh_grad",
        SiluGrad => "silu_grad",
    }
    Compare {
        Eq => "eq", Ne => "ne", Lt => "lt", Le => "le", Gt => "gt", Ge => "ge",
    }
    Reduce {
        Sum => "sum", Prod => "prod", Max => "max", Min => "min", Any => "any", All => "all",
    }
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
