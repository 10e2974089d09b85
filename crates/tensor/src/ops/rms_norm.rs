//! Root-mean-square normalisation.

use super::layer_norm::{Rows, check_eps, rows, summands};
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
        backward("rms_norm_backward", self, normalized_shape, weight, rstd, g, None, parameters)
    }

    /// `sum = x + residual`, of one shape, and `y = rms_norm(sum)`, in one pass: `(y, sum)`. Shapes, dtypes and what it is for as with
    /// [`add_layer_norm`](Tensor::add_layer_norm).
    ///
    /// # Panics
    /// As [`rms_norm`](Tensor::rms_norm), and with a Shape error if the shapes of x and the residual differ.
    ///
    /// ```
    /// use ferrograd_tensor::Tensor;
    /// let (x, residual) = (Tensor::new([[1.0f64, 3.0]]), Tensor::new([[2.0f64, -7.0]]));
    /// let (y, sum) = x.add_rms_norm(&residual, &[2], None, 0.0);
    /// assert_eq!(sum.to_vec::<f64>(), [3.0, -4.0]);
    /// assert!(y.all_close(&(&sum / 12.5f64.sqrt()), 1e-15, 0.0)); // √(mean of 9 and 16)
    /// ```
    #[track_caller]
    pub fn add_rms_norm(
        &self,
        residual: &Tensor,
        normalized_shape: &[usize],
        weight: Option<&Tensor>,
        eps: f64,
    ) -> (Tensor, Tensor) {
        let (y, sum, _) = self.add_rms_norm_with_stats(residual, normalized_shape, weight, eps);
        (y, sum)
    }
    /// [`add_rms_norm`](Tensor::add_rms_norm) and the statistic of [`rms_norm_with_stats`](Tensor::rms_norm_with_stats):
    /// `(y, sum, rstd)`.
    #[track_caller]
    pub fn add_rms_norm_with_stats(
        &self,
        residual: &Tensor,
        normalized_shape: &[usize],
        weight: Option<&Tensor>,
        eps: f64,
    ) -> (Tensor, Tensor, Tensor) {
        const OP: &str = "add_rms_norm";
        check_eps(OP, eps);
        let [x, residual] = summands(OP, self, residual, [weight, None]);
        let Rows { x, weight, lead, .. } = rows(OP, &x, normalized_shape, weight, None);
        let (residual, weight) = (residual.reshape(x.shape()), weight.as_ref());
        let fused = self.device.backend().add_rms_norm(&x, &residual, weight, eps);
        let (y, sum, rstd) = fused.unwrap_or_else(|| {
            let sum = &x + &residual;
            let (y, rstd) = composed(&sum, weight, eps);
            (y, sum, rstd)
        });
        (y.reshape(self.shape()), sum.reshape(self.shape()), rstd.reshape(&lead))
    }
    /// The gradients `(∂L/∂x = ∂L/∂residual, ∂L/∂weight if parameters)` of [`add_rms_norm`](Tensor::add_rms_norm) that gave this
    /// sum, from `rstd`, `g = ∂L/∂y` and `g_sum = ∂L/∂sum`: those of [`rms_norm_backward`](Tensor::rms_norm_backward), and
    /// `g_sum` added to the first.
    #[track_caller]
    pub fn add_rms_norm_backward(
        &self,
        normalized_shape: &[usize],
        weight: Option<&Tensor>,
        rstd: &Tensor,
        g: &Tensor,
        g_sum: &Tensor,
        parameters: bool,
    ) -> (Tensor, Option<Tensor>) {
        const OP: &str = "add_rms_norm_backward";
        check_gradient(OP, self, g_sum);
        backward(OP, self, normalized_shape, weight, rstd, g, Some(g_sum), parameters)
    }
}

/// The gradients of the norm of `x`, with `others` added to its own.
#[track_caller]
fn backward(
    op: &'static str,
    like: &Tensor,
    normalized_shape: &[usize],
    weight: Option<&Tensor>,
    rstd: &Tensor,
    g: &Tensor,
    others: Option<&Tensor>,
    parameters: bool,
) -> (Tensor, Option<Tensor>) {
    check_gradient(op, like, g);
    let Rows { x, weight, lead, .. } = rows(op, like, normalized_shape, weight, None);
    let weight = weight.as_ref();
    let (rstd, g) = (rstd.reshape(lead.numel()), g.reshape(x.shape()));
    let others = others.map(|others| others.reshape(x.shape()));
    let others = others.as_ref();
    let fused = like.device.backend().rms_norm_backward(&x, weight, &rstd, &g, others, parameters);
    let (dx, dw) = fused.unwrap_or_else(|| composed_backward(&x, weight, &rstd, &g, others, parameters));
    (dx.reshape(like.shape()), dw.map(|w| w.reshape(normalized_shape)))
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

/// [`Tensor::rms_norm_backward`] of the rows of `[R, N]`, likewise; with `others` added to dx.
pub fn composed_backward(
    x: &Tensor,
    weight: Option<&Tensor>,
    rstd: &Tensor,
    g: &Tensor,
    others: Option<&Tensor>,
    parameters: bool,
) -> (Tensor, Option<Tensor>) {
    let g = widened(g);
    let rstd = rstd.unsqueeze(1);
    let normal = widened(x) * &rstd;
    let gw = weight.map_or(g.clone(), |w| &g * w);
    let dx = rstd * (&gw - &normal * (&gw * &normal).mean_keepdims(1));
    let dx = others.map_or(dx.clone(), |others| &dx + others);
    (dx.to_dtype(x.dtype()), parameters.then(|| (g * normal).sum_dims(0).to_dtype(x.dtype())))
}
