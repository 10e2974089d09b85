//! Batch normalisation.

use super::group_norm::{Channels, channels, check_vector, column};
use super::layer_norm::check_eps;
use super::softmax::{check_gradient, widened};
use crate::{Tensor, ensure};

impl Tensor {
    /// Batch norm in training: each channel (dimension 1) of `x = [B, C, …]` normalised by its mean and biased variance over
    /// the batch and all positions, `y = (x − mean) / √(variance + eps) · weight + bias`, `weight` and `bias` `[C]`. Gives
    /// `(y, mean [C], biased variance [C])`; the statistics are f32 for half types. dtypes are promoted to one, which is y's.
    ///
    /// S. Ioffe, C. Szegedy 2015, arXiv:1502.03167.
    ///
    /// # Panics
    /// With a Shape error for fewer than 2 dimensions or parameters not of shape `[C]`, with a DType error unless x is a
    /// float, with a Value error for a negative `eps` or fewer than 2 values per channel, of which there is no variance.
    #[track_caller]
    pub fn batch_norm(&self, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> (Tensor, Tensor, Tensor) {
        const OP: &str = "batch_norm";
        check_eps(OP, eps);
        let Channels { x, weight, bias } = channels(OP, self, weight, bias);
        let n = x.dims()[0] * x.dims()[2];
        ensure!(n > 1, Value, OP, "training needs more than 1 value per channel, {} has {n}", self.shape());
        let backend = self.device.backend();
        let (mean, variance) = backend.batch_norm_statistics(&x).unwrap_or_else(|| composed_statistics(&x));
        let rstd = (&variance + eps).rsqrt();
        (apply(&x, &mean, &rstd, weight.as_ref(), bias.as_ref()).reshape(self.shape()), mean, variance)
    }
    /// Batch norm in evaluation, by given statistics `mean` and `variance` `[C]`:
    /// `y = (x − mean) / √(variance + eps) · weight + bias`. The result has the dtype that x, weight and bias promote to.
    ///
    /// # Panics
    /// As [`batch_norm`](Tensor::batch_norm), but for the number of values.
    #[track_caller]
    pub fn batch_norm_eval(
        &self,
        mean: &Tensor,
        variance: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> Tensor {
        const OP: &str = "batch_norm_eval";
        check_eps(OP, eps);
        let Channels { x, weight, bias } = channels(OP, self, weight, bias);
        check_vector(OP, "mean", Some(mean), self);
        check_vector(OP, "variance", Some(variance), self);
        let dtype = x.dtype().accumulator();
        let (mean, rstd) = (mean.to_dtype(dtype), (variance.to_dtype(dtype) + eps).rsqrt());
        apply(&x, &mean, &rstd, weight.as_ref(), bias.as_ref()).reshape(self.shape())
    }
    /// The gradients `(∂L/∂x, ∂L/∂weight, ∂L/∂bias)` of batch norm of this `x` from `mean`, `rstd = 1/√(variance + eps)` and
    /// `g = ∂L/∂y`. With `x̂ = (x − mean)·rstd` and means by channel:
    ///
    /// `dx = rstd·w·(g − mean g − x̂·mean(g·x̂))` in `training`, where the statistics came from x, else `rstd·w·g`;
    /// `dweight = Σ g·x̂`, `dbias = Σ g`. All tensors but the statistics have x's dtype.
    #[track_caller]
    pub fn batch_norm_backward(
        &self,
        weight: Option<&Tensor>,
        mean: &Tensor,
        rstd: &Tensor,
        g: &Tensor,
        training: bool,
    ) -> (Tensor, Tensor, Tensor) {
        const OP: &str = "batch_norm_backward";
        check_gradient(OP, self, g);
        let Channels { x, weight, .. } = channels(OP, self, weight, None);
        check_vector(OP, "mean", Some(mean), self);
        check_vector(OP, "rstd", Some(rstd), self);
        let dtype = x.dtype().accumulator();
        let (mean, rstd, g) = (mean.to_dtype(dtype), rstd.to_dtype(dtype), g.reshape(x.shape()));
        let weight = weight.as_ref();
        let fused = self.device.backend().batch_norm_backward(&x, weight, &mean, &rstd, &g, training);
        let (dx, dw, db) = fused.unwrap_or_else(|| composed_backward(&x, weight, &mean, &rstd, &g, training));
        (dx.reshape(self.shape()), dw, db)
    }
}

fn apply(x: &Tensor, mean: &Tensor, rstd: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>) -> Tensor {
    let fused = x.device().backend().batch_norm_apply(x, mean, rstd, weight, bias);
    fused.unwrap_or_else(|| composed_apply(x, mean, rstd, weight, bias))
}

/// Mean and biased variance of each channel of `[B, C, S]` in elementwise operations and reductions: what a backend without
/// the fused kernel runs.
pub fn composed_statistics(x: &Tensor) -> (Tensor, Tensor) {
    let x = widened(x);
    let mean = x.mean_keepdims([0, 2]);
    let variance = (&x - &mean).square().mean_dims([0, 2]);
    (mean.reshape(variance.shape()), variance)
}

/// `(x − mean)·rstd·weight + bias` of `[B, C, S]`, likewise.
pub fn composed_apply(
    x: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Tensor {
    let scale = weight.map_or(rstd.clone(), |w| rstd * w);
    let y = (widened(x) - column(mean)) * column(&scale);
    bias.map_or(y.clone(), |b| &y + column(b)).to_dtype(x.dtype())
}

/// [`Tensor::batch_norm_backward`] of `[B, C, S]`, likewise.
pub fn composed_backward(
    x: &Tensor,
    weight: Option<&Tensor>,
    mean: &Tensor,
    rstd: &Tensor,
    g: &Tensor,
    training: bool,
) -> (Tensor, Tensor, Tensor) {
    let (wide, g) = (widened(x), widened(g));
    let normal = (wide - column(mean)) * column(rstd);
    let (dw, db) = ((&g * &normal).sum_dims([0, 2]), g.sum_dims([0, 2]));
    let scale = weight.map_or(rstd.clone(), |w| rstd * w);
    let n = (x.dims()[0] * x.dims()[2]) as f64;
    let inner = if training { &g - column(&(&db / n)) - normal * column(&(&dw / n)) } else { g };
    let narrow = |t: Tensor| t.to_dtype(x.dtype());
    (narrow(column(&scale) * inner), narrow(dw), narrow(db))
}
