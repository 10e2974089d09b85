//! Group normalisation.

use super::layer_norm::{check_eps, common_dtype};
use super::softmax::{check_gradient, widened};
use crate::{Tensor, ensure};

/// The arguments of a norm by channel as its kernels want them: `x` as `[B, C, S]`, one dtype.
pub(super) struct Channels {
    pub x: Tensor,
    pub weight: Option<Tensor>,
    pub bias: Option<Tensor>,
}

#[track_caller]
pub(super) fn channels(op: &'static str, x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>) -> Channels {
    let dtype = common_dtype(op, x, [weight, bias]);
    ensure!(x.rank() >= 2, Shape, op, "needs at least 2 dimensions [B, C, …], got {}", x.shape());
    let (b, c) = (x.dims()[0], x.dims()[1]);
    for (name, p) in [("weight", weight), ("bias", bias)] {
        check_vector(op, name, p, x);
    }
    let cast = |p: &Tensor| p.to_dtype(dtype);
    let size = x.dims()[2..].iter().product();
    Channels { x: x.to_dtype(dtype).reshape([b, c, size]), weight: weight.map(cast), bias: bias.map(cast) }
}

/// One number per channel.
#[track_caller]
pub(super) fn check_vector(op: &'static str, name: &str, p: Option<&Tensor>, x: &Tensor) {
    if let Some(p) = p {
        ensure!(
            p.dims() == [x.dims()[1]],
            Shape,
            op,
            "{name} has shape {}, the input {} has {} channels (dimension 1)",
            p.shape(),
            x.shape(),
            x.dims()[1]
        );
    }
}

#[track_caller]
fn check_groups(op: &'static str, x: &Tensor, groups: usize) {
    ensure!(groups > 0, Value, op, "groups must be at least 1");
    ensure!(
        x.dims()[1].is_multiple_of(groups),
        Shape,
        op,
        "{} channels do not divide into {groups} groups: {}",
        x.dims()[1],
        x.shape()
    );
}

impl Tensor {
    /// Each group of `C/groups` neighbouring channels of `x = [B, C, …]` normalised by its own mean and biased variance over
    /// those channels and all positions, `(x − mean) / √(variance + eps)`, then scaled by `weight` and shifted by `bias`
    /// `[C]`. One group is layer norm over everything but B; as many groups as channels is instance norm. dtypes are promoted
    /// to one, which is the result's; half types compute in f32.
    ///
    /// Y. Wu, K. He 2018, arXiv:1803.08494.
    ///
    /// # Panics
    /// With a Shape error for fewer than 2 dimensions, channels that do not divide, or parameters not of shape `[C]`; with a
    /// DType error unless x is a float; with a Value error for 0 groups or a negative `eps`.
    #[track_caller]
    pub fn group_norm(&self, groups: usize, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Tensor {
        self.group_norm_with_stats(groups, weight, bias, eps).0
    }
    /// [`group_norm`](Tensor::group_norm), and each group's mean and `1/√(variance + eps)`, `[B, groups]`; f32 for half types.
    #[track_caller]
    pub fn group_norm_with_stats(
        &self,
        groups: usize,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> (Tensor, Tensor, Tensor) {
        const OP: &str = "group_norm";
        check_eps(OP, eps);
        let Channels { x, weight, bias } = channels(OP, self, weight, bias);
        check_groups(OP, self, groups);
        let (weight, bias) = (weight.as_ref(), bias.as_ref());
        let fused = self.device.backend().group_norm(&x, groups, weight, bias, eps);
        let (y, mean, rstd) = fused.unwrap_or_else(|| composed(&x, groups, weight, bias, eps));
        let stats = [self.dims()[0], groups];
        (y.reshape(self.shape()), mean.reshape(stats), rstd.reshape(stats))
    }
    /// The gradients `(∂L/∂x, ∂L/∂weight, ∂L/∂bias)` of [`group_norm`](Tensor::group_norm) of this `x`, from the statistics
    /// that [`group_norm_with_stats`](Tensor::group_norm_with_stats) gave and `g = ∂L/∂y`; the formula is
    /// [`layer_norm_backward`](Tensor::layer_norm_backward)'s. All tensors but the statistics have x's dtype.
    #[track_caller]
    pub fn group_norm_backward(
        &self,
        groups: usize,
        weight: Option<&Tensor>,
        mean: &Tensor,
        rstd: &Tensor,
        g: &Tensor,
    ) -> (Tensor, Tensor, Tensor) {
        const OP: &str = "group_norm_backward";
        check_gradient(OP, self, g);
        let Channels { x, weight, .. } = channels(OP, self, weight, None);
        check_groups(OP, self, groups);
        let weight = weight.as_ref();
        let sets = self.dims()[0] * groups;
        let (mean, rstd, g) = (mean.reshape(sets), rstd.reshape(sets), g.reshape(x.shape()));
        let fused = self.device.backend().group_norm_backward(&x, groups, weight, &mean, &rstd, &g);
        let (dx, dw, db) = fused.unwrap_or_else(|| composed_backward(&x, groups, weight, &mean, &rstd, &g));
        (dx.reshape(self.shape()), dw, db)
    }
}

/// A `[C]` tensor as `[C, 1]`, to go with `[B, C, S]`.
pub(super) fn column(p: &Tensor) -> Tensor {
    p.unsqueeze(1)
}

/// Group norm of `[B, C, S]` in elementwise operations and reductions: `(y, mean [B·groups], rstd [B·groups])`, what a
/// backend without the fused kernel runs.
pub fn composed(
    x: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> (Tensor, Tensor, Tensor) {
    let (sets, n) = (x.dims()[0] * groups, x.dims()[1] / groups * x.dims()[2]);
    let (y, mean, rstd) = super::layer_norm::composed(&widened(x).reshape([sets, n]), None, None, eps);
    let mut y = y.reshape(x.shape());
    if let Some(w) = weight {
        y = y * column(w);
    }
    if let Some(b) = bias {
        y = y + column(b);
    }
    (y.to_dtype(x.dtype()), mean, rstd)
}

/// [`Tensor::group_norm_backward`] of `[B, C, S]`, likewise.
pub fn composed_backward(
    x: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    mean: &Tensor,
    rstd: &Tensor,
    g: &Tensor,
) -> (Tensor, Tensor, Tensor) {
    let (sets, n) = (x.dims()[0] * groups, x.dims()[1] / groups * x.dims()[2]);
    let (wide, g) = (widened(x), widened(g));
    let rows = wide.reshape([sets, n]);
    let gw = weight.map_or(g.clone(), |w| &g * column(w)).reshape([sets, n]);
    let (dx, _) = super::layer_norm::composed_backward(&rows, None, mean, rstd, &gw, None, false);
    let normal = ((rows - mean.unsqueeze(1)) * rstd.unsqueeze(1)).reshape(x.shape());
    let narrow = |t: Tensor| t.to_dtype(x.dtype());
    (narrow(dx.reshape(x.shape())), narrow((&g * normal).sum_dims([0, 2])), narrow(g.sum_dims([0, 2])))
}
