//! Normalising each example by its root mean square.

use super::layer_norm::check_last;
use crate::{Module, Param};
use ferrograd_autograd::{Var, autocast_dtype};
use ferrograd_tensor::{DType, Shape, Tensor};

/// `y = x / √(E[x²] + eps) · weight` over the last dimensions, `normalized_shape`. B. Zhang, R. Sennrich 2019.
///
/// Parameter: `weight` (ones) of `normalized_shape`.
#[derive(Module)]
#[module(extra_repr)]
pub struct RmsNorm {
    /// The scale.
    pub weight: Option<Param>,
    #[module(skip)]
    normalized_shape: Shape,
    eps: Option<f64>,
}
layer!(RmsNorm);

impl RmsNorm {
    /// With a weight; `eps` is the machine epsilon of the input's dtype, as in PyTorch; under autocast, where
    /// normalising computes in f32, that of f32. One number stands for the last
    /// dimension.
    pub fn new(normalized_shape: impl Into<Shape>) -> RmsNorm {
        let shape = normalized_shape.into();
        RmsNorm { weight: Some(Param::new(Tensor::ones(&shape))), normalized_shape: shape, eps: None }
    }
    /// What is added to the mean square.
    pub fn eps(mut self, eps: f64) -> RmsNorm {
        self.eps = Some(eps);
        self
    }
    /// With or without a weight.
    pub fn elementwise_affine(mut self, affine: bool) -> RmsNorm {
        if affine != self.weight.is_some() {
            self.weight = affine.then(|| Param::new(Tensor::ones(&self.normalized_shape)));
        }
        self
    }
    /// The normalised input, of the same shape.
    ///
    /// # Panics
    /// If the last dimensions of `x` are not `normalized_shape`.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        check_last("RmsNorm", x, &self.normalized_shape, self);
        let eps = self.eps_for(x.dtype());
        x.rms_norm(&self.normalized_shape, self.weight.as_ref().map(Param::var).as_ref(), eps)
    }
    /// `sum = x + residual` and its norm, in one pass: `(norm of the sum, sum)`. What a pre-norm block's next layer takes, and what
    /// that layer's output is added to.
    ///
    /// # Panics
    /// As [`forward`](RmsNorm::forward), and if the shapes differ.
    #[track_caller]
    pub fn forward_add(&self, x: &Var, residual: &Var) -> (Var, Var) {
        check_last("RmsNorm", x, &self.normalized_shape, self);
        let eps = self.eps_for(x.dtype().promote(residual.dtype()));
        x.add_rms_norm(residual, &self.normalized_shape, self.weight.as_ref().map(Param::var).as_ref(), eps)
    }
    fn eps_for(&self, dtype: DType) -> f64 {
        self.eps.unwrap_or(match dtype {
            _ if autocast_dtype().is_some() => f32::EPSILON as f64,
            DType::F64 => f64::EPSILON,
            DType::F16 => 9.765625e-4,
            DType::BF16 => 7.8125e-3,
            _ => f32::EPSILON as f64,
        })
    }
    fn extra_repr(&self) -> String {
        let eps = self.eps.map_or("None".to_string(), |e| e.to_string());
        format!("{}, eps={eps}, elementwise_affine={}", self.normalized_shape, self.weight.is_some())
    }
}
