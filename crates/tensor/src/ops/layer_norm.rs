//! Layer normalisation.

use super::softmax::{check_gradient, widened};
use crate::shape::Shape;
use crate::tensor::same_device;
use crate::{DType, Tensor, ensure};

/// A normalisation's arguments as its kernels want them: rows, flat parameters, one dtype.
pub(super) struct Rows {
    pub x: Tensor,
    pub weight: Option<Tensor>,
    pub bias: Option<Tensor>,
    /// The dimensions of `x` that are not normalised.
    pub lead: Shape,
}

/// The one dtype of `x` and its parameters.
#[track_caller]
pub(super) fn common_dtype(op: &'static str, x: &Tensor, parameters: [Option<&Tensor>; 2]) -> DType {
    let mut dtype = x.dtype();
    for p in parameters.into_iter().flatten() {
        same_device(op, &[x, p]);
        dtype = dtype.promote(p.dtype());
    }
    ensure!(x.dtype().is_float(), DType, op, "needs a float tensor, got {} (cast with to_dtype)", x.dtype());
    dtype
}

#[track_caller]
pub(super) fn check_eps(op: &'static str, eps: f64) {
    ensure!(eps >= 0.0 && eps.is_finite(), Value, op, "eps {eps} must be finite and not negative");
}

#[track_caller]
pub(super) fn rows(
    op: &'static str,
    x: &Tensor,
    normalized_shape: &[usize],
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Rows {
    let dtype = common_dtype(op, x, [weight, bias]);
    let k = normalized_shape.len();
    ensure!(k > 0, Shape, op, "normalized_shape is empty: it names the last dimensions, at least one");
    ensure!(
        x.rank() >= k && x.dims()[x.rank() - k..] == *normalized_shape,
        Shape,
        op,
        "the last dimensions of {} are not normalized_shape {normalized_shape:?}",
        x.shape()
    );
    for (name, p) in [("weight", weight), ("bias", bias)] {
        if let Some(p) = p {
            ensure!(
                p.dims() == normalized_shape,
                Shape,
                op,
                "{name} has shape {}, normalized_shape is {normalized_shape:?}",
                p.shape()
            );
        }
    }
    let lead = Shape::from(&x.dims()[..x.rank() - k]);
    let n: usize = normalized_shape.iter().product();
    let flat = |p: &Tensor| p.to_dtype(dtype).reshape(n);
    Rows { x: x.to_dtype(dtype).reshape([lead.numel(), n]), weight: weight.map(flat), bias: bias.map(flat), lead }
}

impl Tensor {
    /// `y = (x − mean) / √(variance + eps) · weight + bias` over the last dimensions, which are `normalized_shape`; the
    /// variance is the biased one. `weight` and `bias` have that shape. dtypes are promoted to one, which is the result's;
    /// half types compute in f32.
    ///
    /// J. L. Ba, J. R. Kiros, G. E. Hinton 2016, arXiv:1607.06450.
    ///
    /// # Panics
    /// With a Shape error if the shapes are not those, with a DType error unless x is a float, with a Value error for a
    /// negative `eps`.
    #[track_caller]
    pub fn layer_norm(
        &self,
        normalized_shape: &[usize],
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> Tensor {
        self.layer_norm_with_stats(normalized_shape, weight, bias, eps).0
    }
    /// [`layer_norm`](Tensor::layer_norm), and each row's mean and `1/√(variance + eps)` in the shape of the dimensions that
    /// are not normalised; f32 for half types. For [`layer_norm_backward`](Tensor::layer_norm_backward).
    #[track_caller]
    pub fn layer_norm_with_stats(
        &self,
        normalized_shape: &[usize],
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> (Tensor, Tensor, Tensor) {
        const OP: &str = "layer_norm";
        check_eps(OP, eps);
        let Rows { x, weight, bias, lead } = rows(OP, self, normalized_shape, weight, bias);
        let (weight, bias) = (weight.as_ref(), bias.as_ref());
        let fused = self.device.backend().layer_norm(&x, weight, bias, eps);
        let (y, mean, rstd) = fused.unwrap_or_else(|| composed(&x, weight, bias, eps));
        (y.reshape(self.shape()), mean.reshape(&lead), rstd.reshape(&lead))
    }
    /// The gradients `(∂L/∂x, (∂L/∂weight, ∂L/∂bias) if parameters)` of [`layer_norm`](Tensor::layer_norm) of this `x`, from
    /// the statistics that [`layer_norm_with_stats`](Tensor::layer_norm_with_stats) gave and `g = ∂L/∂y`. With
    /// `x̂ = (x − mean)·rstd`:
    ///
    /// `dx = rstd·(g·w − mean(g·w) − x̂·mean(g·w·x̂))`, `dweight = Σ g·x̂`, `dbias = Σ g`. All tensors but the statistics
    /// have x's dtype.
    #[track_caller]
    pub fn layer_norm_backward(
        &self,
        normalized_shape: &[usize],
        weight: Option<&Tensor>,
        mean: &Tensor,
        rstd: &Tensor,
        g: &Tensor,
        parameters: bool,
    ) -> (Tensor, Option<(Tensor, Tensor)>) {
        backward("layer_norm_backward", self, normalized_shape, weight, [mean, rstd], g, None, parameters)
    }

    /// `sum = x + residual`, of one shape, and `y = layer_norm(sum)`, in one pass: `(y, sum)`. A pre-norm transformer wants both:
    /// the next layer takes y, and what it gives is added to the sum. dtypes are promoted to one, which both have; half
    /// types compute in f32, from the sum as it is rounded.
    ///
    /// # Panics
    /// As [`layer_norm`](Tensor::layer_norm), and with a Shape error if the shapes of x and the residual differ.
    #[track_caller]
    pub fn add_layer_norm(
        &self,
        residual: &Tensor,
        normalized_shape: &[usize],
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> (Tensor, Tensor) {
        let (y, sum, ..) = self.add_layer_norm_with_stats(residual, normalized_shape, weight, bias, eps);
        (y, sum)
    }
    /// [`add_layer_norm`](Tensor::add_layer_norm) and the statistics of [`layer_norm_with_stats`](Tensor::layer_norm_with_stats):
    /// `(y, sum, mean, rstd)`.
    #[track_caller]
    pub fn add_layer_norm_with_stats(
        &self,
        residual: &Tensor,
        normalized_shape: &[usize],
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> (Tensor, Tensor, Tensor, Tensor) {
        const OP: &str = "add_layer_norm";
        check_eps(OP, eps);
        let [x, residual] = summands(OP, self, residual, [weight, bias]);
        let Rows { x, weight, bias, lead } = rows(OP, &x, normalized_shape, weight, bias);
        let (residual, weight, bias) = (residual.reshape(x.shape()), weight.as_ref(), bias.as_ref());
        let fused = self.device.backend().add_layer_norm(&x, &residual, weight, bias, eps);
        let (y, sum, mean, rstd) = fused.unwrap_or_else(|| {
            let sum = &x + &residual;
            let (y, mean, rstd) = composed(&sum, weight, bias, eps);
            (y, sum, mean, rstd)
        });
        (y.reshape(self.shape()), sum.reshape(self.shape()), mean.reshape(&lead), rstd.reshape(&lead))
    }
    /// The gradients `(∂L/∂x = ∂L/∂residual, (∂L/∂weight, ∂L/∂bias) if parameters)` of
    /// [`add_layer_norm`](Tensor::add_layer_norm) that gave this sum, from the statistics, `g = ∂L/∂y` and `g_sum = ∂L/∂sum`:
    /// those of [`layer_norm_backward`](Tensor::layer_norm_backward), and `g_sum` added to the first.
    #[track_caller]
    pub fn add_layer_norm_backward(
        &self,
        normalized_shape: &[usize],
        weight: Option<&Tensor>,
        mean: &Tensor,
        rstd: &Tensor,
        g: &Tensor,
        g_sum: &Tensor,
        parameters: bool,
    ) -> (Tensor, Option<(Tensor, Tensor)>) {
        const OP: &str = "add_layer_norm_backward";
        check_gradient(OP, self, g_sum);
        backward(OP, self, normalized_shape, weight, [mean, rstd], g, Some(g_sum), parameters)
    }
}

/// Both in one dtype, which is also the parameters'.
#[track_caller]
pub(super) fn summands(
    op: &'static str,
    x: &Tensor,
    residual: &Tensor,
    parameters: [Option<&Tensor>; 2],
) -> [Tensor; 2] {
    ensure!(x.shape() == residual.shape(), Shape, op, "x {} and the residual {} differ", x.shape(), residual.shape());
    let dtype = common_dtype(op, x, parameters).promote(common_dtype(op, residual, [Some(x), None]));
    [x, residual].map(|x| x.to_dtype(dtype))
}

/// The gradients of the norm of `x`, with `others` added to its own.
#[track_caller]
fn backward(
    op: &'static str,
    like: &Tensor,
    normalized_shape: &[usize],
    weight: Option<&Tensor>,
    [mean, rstd]: [&Tensor; 2],
    g: &Tensor,
    others: Option<&Tensor>,
    parameters: bool,
) -> (Tensor, Option<(Tensor, Tensor)>) {
    check_gradient(op, like, g);
    let Rows { x, weight, lead, .. } = rows(op, like, normalized_shape, weight, None);
    let weight = weight.as_ref();
    let (mean, rstd, g) = (mean.reshape(lead.numel()), rstd.reshape(lead.numel()), g.reshape(x.shape()));
    let others = others.map(|others| others.reshape(x.shape()));
    let others = others.as_ref();
    let fused = like.device.backend().layer_norm_backward(&x, weight, &mean, &rstd, &g, others, parameters);
    let (dx, dp) = fused.unwrap_or_else(|| composed_backward(&x, weight, &mean, &rstd, &g, others, parameters));
    let shaped = |p: Tensor| p.reshape(normalized_shape);
    (dx.reshape(like.shape()), dp.map(|(w, b)| (shaped(w), shaped(b))))
}

/// Layer norm of the rows of `[R, N]` in elementwise operations and reductions: `(y, mean [R], rstd [R])`, what a backend
/// without the fused kernel runs.
pub fn composed(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> (Tensor, Tensor, Tensor) {
    let wide = widened(x);
    let mean = wide.mean_keepdims(1);
    let centred = &wide - &mean;
    let rstd = (centred.square().mean_keepdims(1) + eps).rsqrt();
    let mut y = centred * &rstd;
    if let Some(w) = weight {
        y = y * w;
    }
    if let Some(b) = bias {
        y = y + b;
    }
    (y.to_dtype(x.dtype()), mean.squeeze(1), rstd.squeeze(1))
}

/// [`Tensor::layer_norm_backward`] of the rows of `[R, N]`, likewise; with `others` added to dx.
pub fn composed_backward(
    x: &Tensor,
    weight: Option<&Tensor>,
    mean: &Tensor,
    rstd: &Tensor,
    g: &Tensor,
    others: Option<&Tensor>,
    parameters: bool,
) -> (Tensor, Option<(Tensor, Tensor)>) {
    let (wide, g) = (widened(x), widened(g));
    let rstd = rstd.unsqueeze(1);
    let normal = (wide - mean.unsqueeze(1)) * &rstd;
    let gw = weight.map_or(g.clone(), |w| &g * w);
    let dx = rstd * (&gw - gw.mean_keepdims(1) - &normal * (&gw * &normal).mean_keepdims(1));
    let dx = others.map_or(dx.clone(), |others| &dx + others);
    let narrow = |t: Tensor| t.to_dtype(x.dtype());
    let dp = parameters.then(|| (narrow((&g * normal).sum_dims(0)), narrow(g.sum_dims(0))));
    (narrow(dx), dp)
}
