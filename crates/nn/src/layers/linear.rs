//! `y = x Wᵀ + b`.

use crate::{Module, Param, init};
use ferrograd_autograd::Var;
use ferrograd_tensor::ensure;

/// `y = x Wᵀ + b`: `[…, in_features]` → `[…, out_features]`.
///
/// Parameters: `weight` `[out_features, in_features]` and `bias` `[out_features]`, both from U(±1/√in_features).
#[derive(Module)]
#[module(extra_repr)]
pub struct Linear {
    /// `[out_features, in_features]`.
    pub weight: Param,
    /// `[out_features]`.
    pub bias: Option<Param>,
}
layer!(Linear);

impl Linear {
    /// A layer with a bias.
    pub fn new(in_features: usize, out_features: usize) -> Linear {
        Linear {
            weight: Param::new(init::by_fan_in([out_features, in_features], in_features)),
            bias: Some(Param::new(init::by_fan_in(out_features, in_features))),
        }
    }
    /// A layer around an existing weight: a tensor, or another layer's parameter (tied weights).
    ///
    /// # Panics
    /// If the weight is no matrix, or the bias no vector of its rows.
    #[track_caller]
    pub fn from_weight(weight: impl Into<Param>, bias: Option<Param>) -> Linear {
        let weight = weight.into();
        let [out_features, _] = weight.tensor().dims_of("Linear::from_weight");
        if let Some(b) = &bias {
            let (w, b) = (weight.tensor(), b.tensor());
            let fits = *b.shape() == [out_features];
            ensure!(fits, Shape, "Linear::from_weight", "bias {} does not fit weight {}", b.shape(), w.shape());
        }
        Linear { weight, bias }
    }
    /// With or without a bias.
    pub fn bias(mut self, bias: bool) -> Linear {
        match bias {
            false => self.bias = None,
            true if self.bias.is_none() => {
                self.bias = Some(Param::new(init::by_fan_in(self.out_features(), self.in_features())))
            }
            true => {}
        }
        self
    }
    /// Features of the input.
    pub fn in_features(&self) -> usize {
        self.weight.tensor().dim(1)
    }
    /// Features of the output.
    pub fn out_features(&self) -> usize {
        self.weight.tensor().dim(0)
    }
    /// `[…, in_features]` → `[…, out_features]`.
    ///
    /// # Panics
    /// If the last dimension of `x` is not `in_features`.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        ensure!(
            x.rank() >= 1 && x.dim(-1) == self.in_features(),
            Shape,
            "Linear",
            "expected input […, {}], got {} ({self})",
            self.in_features(),
            x.shape()
        );
        x.linear(&self.weight.var(), self.bias.as_ref().map(Param::var).as_ref())
    }
    fn extra_repr(&self) -> String {
        let (i, o) = (self.in_features(), self.out_features());
        format!("in_features={i}, out_features={o}, bias={}", self.bias.is_some())
    }
}
