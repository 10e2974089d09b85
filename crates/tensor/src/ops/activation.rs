//! The nonlinearities of networks, as values.

use super::softmax::check_gradient;
use crate::backend::{Binary, Unary};
use crate::{Error, Tensor};
use std::fmt;
use std::str::FromStr;

/// An elementwise nonlinearity as a value: what a configuration names, and what operations take that apply one to their sums.
///
/// ```
/// use ferrograd_tensor::Activation;
/// assert_eq!("gelu_tanh".parse::<Activation>().unwrap(), Activation::GeluTanh);
/// assert_eq!(Activation::Silu.to_string(), "silu");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Activation {
    /// The input as it is.
    #[default]
    Identity,
    /// `max(0, x)`.
    Relu,
    /// `x Φ(x)`, see [`Tensor::gelu`].
    Gelu,
    /// GELU approximated by tanh, as in GPT-2, see [`Tensor::gelu_tanh`].
    GeluTanh,
    /// `x σ(x)`, see [`Tensor::silu`].
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// The logistic function.
    Sigmoid,
    /// [ELU](Tensor::elu) with α = 1.
    Elu,
    /// [Leaky ReLU](Tensor::leaky_relu) with slope [`LEAK`](Activation::LEAK), 0.01.
    LeakyRelu,
    /// `ln(1 + eˣ)`.
    Softplus,
}

impl Activation {
    /// The slope of [`LeakyRelu`](Activation::LeakyRelu) below 0.
    pub const LEAK: f64 = 0.01;
    /// Every activation.
    pub const ALL: [Activation; 10] = [
        Activation::Identity,
        Activation::Relu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Elu,
        Activation::LeakyRelu,
        Activation::Softplus,
    ];
    /// Its name, which [`parse`](str::parse) reads.
    pub fn name(self) -> &'static str {
        self.function().map_or("identity", |f| f.name())
    }
    /// What a backend is told to compute; the identity is nothing to compute.
    pub fn function(self) -> Option<Unary> {
        Some(match self {
            Activation::Identity => return None,
            Activation::Relu => Unary::Relu,
            Activation::Gelu => Unary::Gelu,
            Activation::GeluTanh => Unary::GeluTanh,
            Activation::Silu => Unary::Silu,
            Activation::Tanh => Unary::Tanh,
            Activation::Sigmoid => Unary::Sigmoid,
            Activation::Elu => Unary::Elu(1.0),
            Activation::LeakyRelu => Unary::LeakyRelu(Activation::LEAK),
            Activation::Softplus => Unary::Softplus,
        })
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Activation {
    type Err = Error;
    /// Its own names, and those of Hugging Face's configurations.
    fn from_str(name: &str) -> Result<Activation, Error> {
        let own = match name {
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => "gelu_tanh",
            "swish" => "silu",
            "linear" => "identity",
            name => name,
        };
        let known = || Activation::ALL.map(Activation::name).join(", ");
        let found = Activation::ALL.into_iter().find(|f| f.name() == own);
        found.ok_or_else(|| Error::format("activation", format!("`{name}` is none of {}", known())))
    }
}

impl Tensor {
    /// `f(x)` elementwise. Integers become f32, but as they are under the identity.
    #[track_caller]
    pub fn activate(&self, f: Activation) -> Tensor {
        f.function().map_or_else(|| self.clone(), |function| self.float_unary(f.name(), function))
    }
    /// `g · f'(x)` elementwise: the gradient of [`activate`](Tensor::activate) of this `x`, from that of its result. Both have one
    /// shape and dtype.
    ///
    /// # Panics
    /// With a Shape or a DType error if they do not.
    ///
    /// ```
    /// use ferrograd_tensor::{Activation, Tensor};
    /// let (x, g) = (Tensor::new([-2f32, 3.0]), Tensor::new([5f32, 5.0]));
    /// assert_eq!(x.activate_backward(Activation::Relu, &g).to_vec::<f32>(), [0.0, 5.0]);
    /// ```
    #[track_caller]
    pub fn activate_backward(&self, f: Activation, g: &Tensor) -> Tensor {
        check_gradient("activate_backward", self, g);
        let where_positive = |below: Tensor| self.gt_scalar(0.0).where_(g, &below);
        match f {
            Activation::Identity => g.clone(),
            Activation::Relu => self.binary_grad(Binary::ReluGrad, g),
            Activation::Gelu => self.binary_grad(Binary::GeluGrad, g),
            Activation::GeluTanh => self.binary_grad(Binary::GeluTanhGrad, g),
            Activation::Silu => self.binary_grad(Binary::SiluGrad, g),
            Activation::Tanh => self.tanh().binary_grad(Binary::TanhGrad, g),
            Activation::Sigmoid => self.sigmoid().binary_grad(Binary::SigmoidGrad, g),
            Activation::Elu => where_positive(g * self.exp()),
            Activation::LeakyRelu => where_positive(g * Activation::LEAK),
            Activation::Softplus => g * self.sigmoid(),
        }
    }
}
