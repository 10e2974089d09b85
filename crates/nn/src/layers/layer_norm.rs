//! Normalising each example by its own mean and variance.

use crate::{Module, Param};
use ferrograd_autograd::Var;
use ferrograd_tensor::{Shape, Tensor, ensure};

/// `y = (x − E[x]) / √(Var[x] + eps) · weight + bias` over the last dimensions, `normalized_shape`. J. L. Ba, J. R. Kiros,
/// G. E. Hinton 2016.
///
/// Parameters: `weight` (ones) and `bias` (zeros) of `normalized_shape`.
#[derive(Module)]
#[module(extra_repr)]
pub struct LayerNorm {
    /// The scale.
    pub weight: Option<Param>,
    /// The shift.
    pub bias: Option<Param>,
    #[module(skip)]
    normalized_shape: Shape,
    eps: f64,
}
layer!(LayerNorm);

impl LayerNorm {
    /// `eps` 1e-5, with weight and bias. One number stands for the last dimension.
    pub fn new(normalized_shape: impl Into<Shape>) -> LayerNorm {
        let shape = normalized_shape.into();
        LayerNorm {
            weight: Some(Param::new(Tensor::ones(&shape))),
            bias: Some(Param::new(Tensor::zeros(&shape))),
            normalized_shape: shape,
            eps: 1e-5,
        }
    }
    /// What is added to the variance.
    pub fn eps(mut self, eps: f64) -> LayerNorm {
        self.eps = eps;
        self
    }
    /// With or without a bias.
    pub fn bias(mut self, bias: bool) -> LayerNorm {
        if bias != self.bias.is_some() {
            self.bias = bias.then(|| Param::new(Tensor::zeros(&self.normalized_shape)));
        }
        self
    }
    /// With weight and bias, or without either.
    pub fn elementwise_affine(mut self, affine: bool) -> LayerNorm {
        if affine != self.weight.is_some() {
            self.weight = affine.then(|| Param::new(Tensor::ones(&self.normalized_shape)));
        }
        self.bias(affine)
    }
    /// The normalised input, of the same shape.
    ///
    /// # Panics
    /// If the last dimensions of `x` are not `normalized_shape`.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        check_last("LayerNorm", x, &self.normalized_shape, self);
        let (weight, bias) = (self.weight.as_ref().map(Param::var), self.bias.as_ref().map(Param::var));
        x.layer_norm(&self.normalized_shape, weight.as_ref(), bias.as_ref(), self.eps)
    }
    /// `sum = x + residual` and its norm, in one pass: `(norm of the sum, sum)`. What a pre-norm block's next layer takes, and what
    /// that layer's output is added to.
    ///
    /// # Panics
    /// As [`forward`](LayerNorm::forward), and if the shapes differ.
    #[track_caller]
    pub fn forward_add(&self, x: &Var, residual: &Var) -> (Var, Var) {
        check_last("LayerNorm", x, &self.normalized_shape, self);
        let (weight, bias) = (self.weight.as_ref().map(Param::var), self.bias.as_ref().map(Param::var));
        x.add_layer_norm(residual, &self.normalized_shape, weight.as_ref(), bias.as_ref(), self.eps)
    }
    fn extra_repr(&self) -> String {
        let (shape, eps, affine) = (&self.normalized_shape, self.eps, self.weight.is_some());
        let bias = if affine && self.bias.is_none() { ", bias=false" } else { "" };
        format!("{shape}, eps={eps}, elementwise_affine={affine}{bias}")
    }
}

/// Are the last dimensions of `x` the normalised ones?
#[track_caller]
pub(super) fn check_last(layer: &'static str, x: &Var, shape: &Shape, repr: &dyn std::fmt::Display) {
    let inner: Vec<String> = shape.iter().map(usize::to_string).collect();
    let inner = inner.join(", ");
    ensure!(x.dims().ends_with(shape), Shape, layer, "expected input […, {inner}], got {} ({repr})", x.shape());
}
