//! Elementwise nonlinearities, softmax, and the choice of one by name.

use crate::{Layer, Module, Visitor};
use ferrograd_autograd::Var;

pub use ferrograd_autograd::Activation;

/// Layers without settings.
macro_rules! plain {
    ($($(#[$doc:meta])* $Layer:ident $f:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Module, Clone, Copy, Default, PartialEq)]
        pub struct $Layer;
        layer!($Layer);
        impl $Layer {
            /// The layer; it has no settings.
            pub fn new() -> $Layer {
                $Layer
            }
            /// The activated input, of the same shape.
            #[track_caller]
            pub fn forward(&self, x: &Var) -> Var {
                let f: fn(&Var) -> Var = $f;
                f(x)
            }
        }
    )*};
}
plain! {
    /// The input as it is.
    Identity Var::clone;
    /// `max(0, x)`.
    Relu Var::relu;
    /// `x σ(x)`, also called swish.
    Silu Var::silu;
    /// Hyperbolic tangent.
    Tanh Var::tanh;
    /// The logistic function `σ(x) = 1/(1 + e⁻ˣ)`.
    Sigmoid Var::sigmoid;
}

/// Layers with one number.
macro_rules! with_setting {
    ($($(#[$doc:meta])* $Layer:ident { $(#[$setting_doc:meta])* $setting:ident: $T:ty } $f:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Module, Clone, Copy, PartialEq)]
        #[module(extra_repr)]
        pub struct $Layer {
            $setting: $T,
        }
        layer!($Layer);
        impl $Layer {
            $(#[$setting_doc])*
            pub fn $setting(mut self, $setting: $T) -> $Layer {
                self.$setting = $setting;
                self
            }
            /// The activated input, of the same shape.
            #[track_caller]
            pub fn forward(&self, x: &Var) -> Var {
                let f: fn(&Var, $T) -> Var = $f;
                f(x, self.$setting)
            }
            fn extra_repr(&self) -> String {
                format!("{}={}", stringify!($setting), self.$setting)
            }
        }
    )*};
}
with_setting! {
    /// `x Φ(x)`, Φ the normal distribution function. D. Hendrycks, K. Gimpel 2016.
    Gelu {
        /// With the approximation by tanh that GPT-2 uses?
        tanh: bool
    } |x, tanh| if tanh { x.gelu_tanh() } else { x.gelu() };
    /// `x` if positive, else `α(eˣ − 1)`.
    Elu {
        /// The limit for x → −∞, negated.
        alpha: f64
    } Var::elu;
    /// `x` if positive, else `negative_slope · x`.
    LeakyRelu {
        /// The slope below 0.
        negative_slope: f64
    } Var::leaky_relu;
    /// `1/β ln(1 + e^{βx})`: a smooth ReLU.
    Softplus {
        /// How sharp the bend is.
        beta: f64
    } |x, beta| if beta == 1.0 { x.softplus() } else { (x * beta).softplus() / beta };
    /// `eˣ / Σ eˣ` along a dimension.
    Softmax {
        /// The dimension along which the sum is 1.
        dim: isize
    } Var::softmax;
    /// `ln(eˣ / Σ eˣ)` along a dimension.
    LogSoftmax {
        /// The dimension along which the sum is taken.
        dim: isize
    } Var::log_softmax;
}
impl Default for Gelu {
    fn default() -> Gelu {
        Gelu::new()
    }
}
impl Gelu {
    /// The exact one.
    pub fn new() -> Gelu {
        Gelu { tanh: false }
    }
}
impl Default for Elu {
    fn default() -> Elu {
        Elu::new()
    }
}
impl Elu {
    /// α = 1.
    pub fn new() -> Elu {
        Elu { alpha: 1.0 }
    }
}
impl Default for LeakyRelu {
    fn default() -> LeakyRelu {
        LeakyRelu::new()
    }
}
impl LeakyRelu {
    /// Slope 0.01.
    pub fn new() -> LeakyRelu {
        LeakyRelu { negative_slope: 0.01 }
    }
}
impl Default for Softplus {
    fn default() -> Softplus {
        Softplus::new()
    }
}
impl Softplus {
    /// β = 1.
    pub fn new() -> Softplus {
        Softplus { beta: 1.0 }
    }
}
impl Softmax {
    /// Along `dim`.
    pub fn new(dim: isize) -> Softmax {
        Softmax { dim }
    }
}
impl LogSoftmax {
    /// Along `dim`.
    pub fn new(dim: isize) -> LogSoftmax {
        LogSoftmax { dim }
    }
}

impl Module for Activation {
    fn visit(&self, _: &mut Visitor<'_>) {}
    fn extra_repr(&self) -> String {
        self.name().to_string()
    }
}
impl Layer for Activation {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        x.activate(*self)
    }
}
