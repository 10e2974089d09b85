//! Batch norm and group norm of `[B, C, S]`: see `kernels/channel_norm.cu`.

use super::elementwise::{cast, full};
use super::layer_norm::optional;
use super::moments::{Spread, moments};
use super::reduce::{Plan, reduce, split};
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::Layout;
use crate::programs::KernelId;
use ferrograd_tensor::backend::Reduce;
use ferrograd_tensor::{DType, Tensor};

/// The same as in `channel_norm.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    size: i64,
    channels: i64,
    together: i64,
}

impl Sets {
    /// `together`: neighbouring planes that share statistics, or 0 where those of a channel do.
    fn of(x: &Tensor, together: usize) -> Self {
        Sets { size: x.dims()[2] as i64, channels: x.dims()[1] as i64, together: together as i64 }
    }
}

fn id(name: &'static str, dtype: DType) -> KernelId {
    KernelId { file: "channel_norm.cu", define: "", name, dtype: Some(dtype) }
}

/// Statistics as the kernels read them.
fn wide(x: &Tensor) -> Tensor {
    x.to_dtype(x.dtype().accumulator()).contiguous()
}

#[track_caller]
fn apply(
    cuda: &'static Cuda,
    x: &Tensor,
    together: usize,
    [mean, rstd]: [&Tensor; 2],
    [weight, bias]: [Option<&Tensor>; 2],
) -> Tensor {
    let y = cuda.empty(x.shape(), x.dtype());
    let [weight, bias] = [weight, bias].map(|p| p.map(Tensor::contiguous));
    let rest = |a: Arguments| {
        let a = a.value(Sets::of(x, together)).tensor(mean).tensor(rstd);
        optional(optional(a, weight.as_ref()), bias.as_ref())
    };
    // SAFETY: two operands of one dtype; statistics of each set, parameters of each channel.
    unsafe { cuda.map(id("apply", x.dtype()), [x, &y], rest) };
    y
}

/// What leads from sums to gradients.
struct Gradient<'a> {
    x: &'a Tensor,
    g: &'a Tensor,
    weight: Option<Tensor>,
    mean: Tensor,
    rstd: Tensor,
}

impl Gradient<'_> {
    /// `Σ g` and `Σ g·x̂` over `dims`, `[lines, 2]`; `together` neighbouring lines share their statistics.
    #[track_caller]
    fn sums(&self, cuda: &'static Cuda, dims: &[usize], together: usize) -> Tensor {
        let [(x_kept, x_reduced), (g_kept, g_reduced)] = [self.x, self.g].map(|t| split(t, dims));
        let plan = Plan::of(&x_kept, &x_reduced);
        let lines = x_kept.numel();
        let parts = cuda.empty(&[plan.parts, lines, 2].into(), self.rstd.dtype());
        let arguments = Arguments::default()
            .tensor(self.x)
            .tensor(self.g)
            .tensor(&parts)
            .value(Layout::of([&x_kept, &g_kept]))
            .value(Layout::of([&x_reduced, &g_reduced]))
            .value(plan.part as i64)
            .tensor(&self.mean)
            .tensor(&self.rstd)
            .value(together as i64);
        // SAFETY: there is room for each part of each line; the layouts are parts of the operands.
        unsafe { cuda.launch(id(plan.name, self.x.dtype()), plan.grid, plan.block, 0, arguments) };
        if plan.parts == 1 { parts.squeeze(0) } else { reduce(cuda, Reduce::Sum, &parts, &[0]).squeeze(0) }
    }

    /// The means over each set, of `n` elements, from the sums over its `together` lines: `[sets, 2]`.
    #[track_caller]
    fn means(&self, cuda: &'static Cuda, sums: &Tensor, together: usize, n: usize) -> Tensor {
        let sets = sums.dims()[0] / together;
        let means = cuda.empty(&[sets, 2].into(), sums.dtype());
        let arguments = Arguments::default().tensor(sums).tensor(&means).value(sets as i64).value(together as i64);
        let arguments = optional(arguments.value(self.x.dims()[1] as i64), self.weight.as_ref()).value(n as i64);
        // SAFETY: each set has so many lines.
        unsafe { cuda.launch(id("means", self.x.dtype()), cuda.grid_for(sets), BLOCK, 0, arguments) };
        means
    }

    #[track_caller]
    fn dx(&self, cuda: &'static Cuda, means: Option<&Tensor>, together: usize) -> Tensor {
        let dx = cuda.empty(self.x.shape(), self.x.dtype());
        let rest = |a: Arguments| {
            let a = a.value(Sets::of(self.x, together)).tensor(&self.mean).tensor(&self.rstd);
            optional(optional(a, self.weight.as_ref()), means)
        };
        // SAFETY: three operands of one dtype; statistics and means of each set, a weight of each channel.
        unsafe { cuda.map(id("backward", self.x.dtype()), [self.x, self.g, &dx], rest) };
        dx
    }

    /// Of nothing.
    #[track_caller]
    fn nothing(&self, cuda: &'static Cuda) -> (Tensor, Tensor, Tensor) {
        let none = || full(cuda, &self.x.dims()[1].into(), self.x.dtype(), 0.0);
        (cuda.empty(self.x.shape(), self.x.dtype()), none(), none())
    }
}

/// `(dweight, dbias)` from sums `[C, 2]`.
#[track_caller]
fn parameters(cuda: &'static Cuda, sums: &Tensor, dtype: DType) -> (Tensor, Tensor) {
    let column = |k| cast(cuda, &sums.select(1, k), dtype);
    (column(1), column(0))
}

/// See [`Backend::batch_norm_statistics`](ferrograd_tensor::backend::Backend::batch_norm_statistics).
#[track_caller]
pub fn batch_norm_statistics(cuda: &'static Cuda, x: &Tensor) -> (Tensor, Tensor) {
    let shape = x.dims()[1].into();
    if x.numel() == 0 {
        let nothing = || full(cuda, &shape, x.dtype().accumulator(), f64::NAN);
        return (nothing(), nothing());
    }
    moments(cuda, x, &[0, 2], Spread::Variance { correction: 0.0 }, &shape)
}

/// See [`Backend::batch_norm_apply`](ferrograd_tensor::backend::Backend::batch_norm_apply).
#[track_caller]
pub fn batch_norm_apply(
    cuda: &'static Cuda,
    x: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Tensor {
    apply(cuda, x, 0, [&wide(mean), &wide(rstd)], [weight, bias])
}

/// See [`Backend::batch_norm_backward`](ferrograd_tensor::backend::Backend::batch_norm_backward).
#[track_caller]
pub fn batch_norm_backward(
    cuda: &'static Cuda,
    x: &Tensor,
    weight: Option<&Tensor>,
    mean: &Tensor,
    rstd: &Tensor,
    g: &Tensor,
    training: bool,
) -> (Tensor, Tensor, Tensor) {
    let gradient = Gradient { x, g, weight: weight.map(Tensor::contiguous), mean: wide(mean), rstd: wide(rstd) };
    if x.numel() == 0 {
        return gradient.nothing(cuda);
    }
    let sums = gradient.sums(cuda, &[0, 2], 1);
    let means = training.then(|| gradient.means(cuda, &sums, 1, x.dims()[0] * x.dims()[2]));
    let (dweight, dbias) = parameters(cuda, &sums, x.dtype());
    (gradient.dx(cuda, means.as_ref(), 0), dweight, dbias)
}

/// See [`Backend::group_norm`](ferrograd_tensor::backend::Backend::group_norm).
#[track_caller]
pub fn group_norm(
    cuda: &'static Cuda,
    x: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> (Tensor, Tensor, Tensor) {
    let [b, c] = [x.dims()[0], x.dims()[1]];
    let sets = (b * groups).into();
    if x.numel() == 0 {
        let nothing = || full(cuda, &sets, x.dtype().accumulator(), f64::NAN);
        return (cuda.empty(x.shape(), x.dtype()), nothing(), nothing());
    }
    let per = c / groups;
    let (mean, rstd) = moments(cuda, &x.unflatten(1, &[groups, per]), &[2, 3], Spread::Rstd { eps }, &sets);
    (apply(cuda, x, per, [&mean, &rstd], [weight, bias]), mean, rstd)
}

/// See [`Backend::group_norm_backward`](ferrograd_tensor::backend::Backend::group_norm_backward).
#[track_caller]
pub fn group_norm_backward(
    cuda: &'static Cuda,
    x: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    mean: &Tensor,
    rstd: &Tensor,
    g: &Tensor,
) -> (Tensor, Tensor, Tensor) {
    let gradient = Gradient { x, g, weight: weight.map(Tensor::contiguous), mean: wide(mean), rstd: wide(rstd) };
    if x.numel() == 0 {
        return gradient.nothing(cuda);
    }
    let [b, c, s] = [x.dims()[0], x.dims()[1], x.dims()[2]];
    let per = c / groups;
    let sums = gradient.sums(cuda, &[2], per);
    let means = gradient.means(cuda, &sums.reshape([b * c, 2]), per, per * s);
    let (dweight, dbias) =
        parameters(cuda, &reduce(cuda, Reduce::Sum, &sums.reshape([b, c, 2]), &[0]).squeeze(0), x.dtype());
    (gradient.dx(cuda, Some(&means), per), dweight, dbias)
}
