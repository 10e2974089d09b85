//! Normalising groups of channels of each example.

use crate::{Module, Param};
use ferrograd_autograd::Var;
use ferrograd_tensor::{Tensor, ensure};

/// `y = (x − E[x]) / √(Var[x] + eps) · weight + bias` for each example over groups of channels (dimension 1) and all
/// positions: `[B, C, …]` of any rank ≥ 2. Y. Wu, K. He 2018.
///
/// Parameters: `weight` (ones) and `bias` (zeros) `[C]`.
#[derive(Module)]
#[module(extra_repr)]
pub struct GroupNorm {
    /// `[C]`: the scale.
    pub weight: Option<Param>,
    /// `[C]`: the shift.
    pub bias: Option<Param>,
    num_groups: usize,
    num_channels: usize,
    eps: f64,
}
layer!(GroupNorm);

impl GroupNorm {
    /// `eps` 1e-5, affine.
    ///
    /// # Panics
    /// If the channels do not divide into the groups.
    #[track_caller]
    pub fn new(num_groups: usize, num_channels: usize) -> GroupNorm {
        let fits = num_groups > 0 && num_channels.is_multiple_of(num_groups);
        ensure!(fits, Value, "GroupNorm", "{num_channels} channels do not divide into {num_groups} groups");
        GroupNorm {
            weight: Some(Param::new(Tensor::ones(num_channels))),
            bias: Some(Param::new(Tensor::zeros(num_channels))),
            num_groups,
            num_channels,
            eps: 1e-5,
        }
    }
    /// What is added to the variance.
    pub fn eps(mut self, eps: f64) -> GroupNorm {
        self.eps = eps;
        self
    }
    /// With or without `weight` and `bias`.
    pub fn affine(mut self, affine: bool) -> GroupNorm {
        if affine != self.weight.is_some() {
            self.weight = affine.then(|| Param::new(Tensor::ones(self.num_channels)));
            self.bias = affine.then(|| Param::new(Tensor::zeros(self.num_channels)));
        }
        self
    }
    /// The normalised input, of the same shape.
    ///
    /// # Panics
    /// If `x` has another number of channels.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        let n = self.num_channels;
        let fits = x.rank() >= 2 && x.dim(1) == n;
        ensure!(fits, Shape, "GroupNorm", "expected input [B, {n}, …], got {} ({self})", x.shape());
        let (weight, bias) = (self.weight.as_ref().map(Param::var), self.bias.as_ref().map(Param::var));
        x.group_norm(self.num_groups, weight.as_ref(), bias.as_ref(), self.eps)
    }
    fn extra_repr(&self) -> String {
        let (groups, n, eps) = (self.num_groups, self.num_channels, self.eps);
        format!("{groups}, {n}, eps={eps}, affine={}", self.weight.is_some())
    }
}
