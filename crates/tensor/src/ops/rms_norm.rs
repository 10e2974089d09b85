//! Root-mean-square normalisation.

use super::layer_norm::{Rows, check_eps, rows};
use super::softmax::{check_gradient, widened};
use crate::Tensor;

impl Tensor {
    /// `y = x / √(mean x² + eps) · weight` over the last dimensions, which are `normalized_shape`, as is `weight`'s shape.
    /// dtypes are promoted to one, which is the result's; half types compute in f32.
    ///
    /// B. Zhang, R. Sennrich 2019, arXiv:1910.07467.
    ///
    /// # Panics
    /// As [`layer_norm`](Tensor::layer_norm).
    #[track_caller]
    pub fn rms_norm(&self, normalized_shape: &[usize], weight: Option<&Tensor>, eps: f64) -> Tensor {
        self.rms_norm_with_stats(normalized_shape, weight, eps).0
    }
    /// [`rms_norm`](Tensor::rms_norm), and each row's `1/√(mean x² + eps)` in the shape of the dimensions that are not
    /// normalised; f32 for half types.
    #[track_caller]
    pub fn rms_norm_with_stats(
        &self,
        normalized_shape: &[usize],
        weight: Option<&Tensor>,
        eps: f64,
    ) -> (Tensor, Tensor) {
        const OP: &str = "rms_norm";
        check_eps(OP, eps);
        let Rows { x, weight, lead, .. } = rows(OP, self, normalized_shape, weight, None);
        let weight = weight.as_ref();
        let (y, rstd) = self.device.backend().rms_norm(&x, weight, eps).unwrap_or_else(|| composed(&x, weight, eps));
        (y.reshape(self.shape()), rstd.reshape(&lead))
    }
    /// The gradients `(∂L/∂x, ∂L/∂weight if parameters)` of [`rms_norm`](Tensor::rms_norm) of this `x`, from `rstd` and
    /// `g = ∂L/∂y`. With `x̂ = x·rstd`: `dx = rstd·(g·w − x̂·mean(g·w·x̂))`, `dweight = Σ g·x̂`. All tensors but `rstd` have
    /// x's dtype.
    #[track_caller]
    pub fn rms_norm_backward(
        &self,
        normalized_shape: &[usize],
        weight: Option<&Tensor>,
        rstd: &Tensor,
        g: &Tensor,
        parameters: bool,
    ) -> (Tensor, Option<Tensor>) {
        const OP: &str = "rms_norm_backward";
        check_gradient(OP, self, g);
        let Rows { x, weight, lead, .. } = rows(OP, self, normalized_shape, weight, None);
        let weight = weight.as_ref();
        let (rstd, g) = (rstd.reshape(lead.numel()), g.reshape(x.shape()));
        let fused = self.device.backend().rms_norm_backward(&x, weight, &rstd, &g, parameters);
        let (dx, dw) = fused.unwrap_or_else(|| composed_backward(&x, weight, &rstd, &g, parameters));
        (dx.reshape(self.shape()), dw.map(|w| w.reshape(normalized_shape)))
    }
}

/// RMS norm of the rows of `[R, N]` in elementwise operations and reductions: `(y, rstd [R])`, what a backend without the
/// fused kernel runs.
pub fn composed(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> (Tensor, Tensor) {
    let wide = widened(x);
    let rstd = (wide.square().mean_keepdims(1) + eps).rsqrt();
    let y = wide * &rstd;
    let y = weight.map_or(y.clone(), |w| &y * w);
    (y.to_dtype(x.dtype()), rstd.squeeze(1))
}

/// [`Tensor::rms_norm_backward`] of the rows of `[R, N]`, likewise.
pub fn composed_backward(
    x: &Tensor,
    weight: Option<&Tensor>,
    rstd: &Tensor,
    g: &Tensor,
    parameters: bool,
) -> (Tensor, Option<Tensor>) {
    let g = widened(g);
    let rstd = rstd.unsqueeze(1);
    let normal = widened(x) * &rstd;
    let gw = weight.map_or(g.clone(), |w| &g * w);
    let dx = rstd * (&gw - &normal * (&gw * &normal).mean_keepdims(1));
    (dx.to_dtype(x.dtype()), parameters.then(|| (g * normal).sum_dims(0).to_dtype(x.dtype())))
}
