//! Convolutions: checks and dispatch. See [`composed`] for what runs on a backend without kernels for them.
//!
//! A convolution `y = conv(x, w)` is linear in both arguments, so its two gradients are the adjoints of these linear
//! maps: [`forward`], [`input_grad`] and [`weight_grad`] are the three faces of the one trilinear form
//! `⟨conv(x, w), dy⟩ = ⟨x, input_grad(dy, w)⟩ = ⟨w, weight_grad(x, dy)⟩`, and the derivative of each consists of the
//! other two. A transposed convolution is the input gradient of a convolution that goes the other way.

pub mod composed;

use crate::tensor::same_device;
use crate::{Shape, Tensor, ensure};

pub use crate::cpu::conv::Conv2dGeometry;

/// How [`Tensor::conv1d`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv1dOptions {
    /// Steps of the window.
    pub stride: usize,
    /// Zeros added on both sides.
    pub padding: usize,
    /// Distance between the kernel's taps.
    pub dilation: usize,
    /// Output channels of a group see only the input channels of that group.
    pub groups: usize,
}
impl Default for Conv1dOptions {
    fn default() -> Self {
        Conv1dOptions { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

/// How [`Tensor::conv2d`] works; pairs are `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Steps of the window.
    pub stride: [usize; 2],
    /// Zeros added on both sides.
    pub padding: [usize; 2],
    /// Distance between the kernel's taps.
    pub dilation: [usize; 2],
    /// Output channels of a group see only the input channels of that group.
    pub groups: usize,
}
impl Default for Conv2dOptions {
    fn default() -> Self {
        Conv2dOptions { stride: [1; 2], padding: [0; 2], dilation: [1; 2], groups: 1 }
    }
}

/// How [`Tensor::conv_transpose2d`] works; pairs are `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTranspose2dOptions {
    /// Distance in the output between neighbours of the input.
    pub stride: [usize; 2],
    /// Rows and columns cut off on both sides of the output.
    pub padding: [usize; 2],
    /// Rows and columns added at the end of the output; below the stride or the dilation.
    pub output_padding: [usize; 2],
    /// Distance between the kernel's taps.
    pub dilation: [usize; 2],
    /// Number of groups.
    pub groups: usize,
}
impl Default for ConvTranspose2dOptions {
    fn default() -> Self {
        ConvTranspose2dOptions { stride: [1; 2], padding: [0; 2], output_padding: [0; 2], dilation: [1; 2], groups: 1 }
    }
}

/// A checked convolution `[N, C, H, W] → [N, O, Ho, Wo]`: its geometry and its output size, which in a transposed
/// convolution may leave the geometry's last windows unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dPlan {
    /// Sizes of the input and of the kernel.
    pub geometry: Conv2dGeometry,
    /// `(Ho, Wo)`, at most `geometry.out_size()`.
    pub out: (usize, usize),
}

impl Conv2dPlan {
    /// `[N, C, H, W]`
    pub fn input_shape(&self) -> Shape {
        let g = &self.geometry;
        [g.n, g.c, g.h, g.w].into()
    }
    /// `[O, C/groups, kh, kw]`
    pub fn weight_shape(&self) -> Shape {
        let g = &self.geometry;
        [g.o, g.c / g.groups, g.kh, g.kw].into()
    }
    /// `[N, O, Ho, Wo]`
    pub fn output_shape(&self) -> Shape {
        [self.geometry.n, self.geometry.o, self.out.0, self.out.1].into()
    }
    /// Multiplications and additions of the convolution, and of each of its gradients.
    pub fn flops(&self) -> f64 {
        2.0 * (self.output_shape().numel() * self.geometry.kh * self.geometry.kw * self.weight_shape()[1]) as f64
    }

    /// The plan of `conv1d(x [N, C, L], w [O, C/g, k])`, with heights 1.
    #[track_caller]
    pub fn conv1d(x: &Shape, w: &Shape, o: &Conv1dOptions) -> Conv2dPlan {
        const OP: &str = "conv1d";
        check_ranks(OP, x, w, 3);
        check_options(OP, &[o.stride], &[o.dilation], o.groups);
        check_channels(OP, x, w, o.groups);
        check_windows(OP, x, w, &[o.padding], &[o.dilation]);
        let geometry = Conv2dGeometry {
            n: x[0],
            c: x[1],
            h: 1,
            w: x[2],
            o: w[0],
            kh: 1,
            kw: w[2],
            stride: (1, o.stride),
            padding: (0, o.padding),
            dilation: (1, o.dilation),
            groups: o.groups,
        };
        Conv2dPlan { geometry, out: geometry.out_size() }
    }

    /// The plan of `conv2d(x [N, C, H, W], w [O, C/g, kh, kw])`.
    #[track_caller]
    pub fn conv2d(x: &Shape, w: &Shape, o: &Conv2dOptions) -> Conv2dPlan {
        const OP: &str = "conv2d";
        check_ranks(OP, x, w, 4);
        check_options(OP, &o.stride, &o.dilation, o.groups);
        check_channels(OP, x, w, o.groups);
        check_windows(OP, x, w, &o.padding, &o.dilation);
        let geometry = Conv2dGeometry {
            n: x[0],
            c: x[1],
            h: x[2],
            w: x[3],
            o: w[0],
            kh: w[2],
            kw: w[3],
            stride: o.stride.into(),
            padding: o.padding.into(),
            dilation: o.dilation.into(),
            groups: o.groups,
        };
        Conv2dPlan { geometry, out: geometry.out_size() }
    }

    /// The convolution `[N, O, Ho, Wo] → [N, C, H, W]` whose input gradient `conv_transpose2d(x [N, C, H, W],
    /// w [C, O/g, kh, kw])` is.
    #[track_caller]
    pub fn conv_transpose2d(x: &Shape, w: &Shape, o: &ConvTranspose2dOptions) -> Conv2dPlan {
        const OP: &str = "conv_transpose2d";
        check_ranks(OP, x, w, 4);
        check_options(OP, &o.stride, &o.dilation, o.groups);
        ensure!(
            x[1] == w[0] && x[1].is_multiple_of(o.groups),
            Shape,
            OP,
            "input {x} with weight {w} and {} groups: the weight's dimension 0 must be the input's {} channels, and a \
             multiple of the groups",
            o.groups,
            x[1]
        );
        let axis = |i: usize| {
            let (n, k, s, d) = (x[2 + i], w[2 + i], o.stride[i], o.dilation[i]);
            let (p, extra) = (o.padding[i], o.output_padding[i]);
            ensure!(
                n > 0 && k > 0,
                Shape,
                OP,
                "input {x} and weight {w} need extents of at least 1 in dimension {}",
                2 + i
            );
            ensure!(
                extra < s.max(d),
                Value,
                OP,
                "output_padding {:?} must be below the stride {:?} or the dilation {:?}",
                o.output_padding,
                o.stride,
                o.dilation
            );
            let full = (n - 1) * s + d * (k - 1) + extra + 1;
            ensure!(
                full > 2 * p,
                Shape,
                OP,
                "input {x} with weight {w} gives {full} in dimension {}, of which padding {:?} leaves nothing",
                2 + i,
                o.padding
            );
            full - 2 * p
        };
        let (ho, wo) = (axis(0), axis(1));
        let geometry = Conv2dGeometry {
            n: x[0],
            c: w[1] * o.groups,
            h: ho,
            w: wo,
            o: x[1],
            kh: w[2],
            kw: w[3],
            stride: o.stride.into(),
            padding: o.padding.into(),
            dilation: o.dilation.into(),
            groups: o.groups,
        };
        Conv2dPlan { geometry, out: (x[2], x[3]) }
    }
}

#[track_caller]
fn check_ranks(op: &'static str, x: &Shape, w: &Shape, rank: usize) {
    let (image, kernel) = if rank == 3 { ("[N, C, L]", "k") } else { ("[N, C, H, W]", "kh, kw") };
    ensure!(
        x.rank() == rank && w.rank() == rank,
        Shape,
        op,
        "input {x} with weight {w}: the input must be {image} and the weight [channels, channels/groups, {kernel}]"
    );
}

#[track_caller]
fn check_options(op: &'static str, stride: &[usize], dilation: &[usize], groups: usize) {
    ensure!(
        groups > 0 && stride.iter().chain(dilation).all(|&n| n > 0),
        Value,
        op,
        "stride {stride:?}, dilation {dilation:?} and groups {groups} must be at least 1"
    );
}

#[track_caller]
fn check_channels(op: &'static str, x: &Shape, w: &Shape, groups: usize) {
    ensure!(
        x[1] == w[1] * groups,
        Shape,
        op,
        "input {x} with weight {w} and {groups} groups: the input has {} channels, the weight expects {} ({} × {groups})",
        x[1],
        w[1] * groups,
        w[1]
    );
    ensure!(
        w[0].is_multiple_of(groups),
        Shape,
        op,
        "weight {w} has {} output channels, which {groups} groups do not divide",
        w[0]
    );
}

#[track_caller]
fn check_windows(op: &'static str, x: &Shape, w: &Shape, padding: &[usize], dilation: &[usize]) {
    for i in 0..padding.len() {
        let (n, k) = (x[2 + i], w[2 + i]);
        ensure!(k > 0, Shape, op, "weight {w} has an empty kernel");
        let (padded, span) = (n + 2 * padding[i], dilation[i] * (k - 1) + 1);
        ensure!(
            span <= padded,
            Shape,
            op,
            "the kernel does not fit: input {x} with padding {padding:?} has {padded} in dimension {}, weight {w} with \
             dilation {dilation:?} spans {span}",
            2 + i
        );
    }
}

/// The operands in the float dtype they promote to, of the shapes the plan gives.
#[track_caller]
fn operands(op: &'static str, [a, b]: [&Tensor; 2], shapes: [Shape; 2]) -> [Tensor; 2] {
    same_device(op, &[a, b]);
    let dtype = a.dtype().promote(b.dtype());
    ensure!(dtype.is_float(), DType, op, "needs floats, got {} and {}", a.dtype(), b.dtype());
    for (t, shape) in [a, b].into_iter().zip(&shapes) {
        ensure!(t.shape() == shape, Shape, op, "operand {} where the convolution has {shape}", t.shape());
    }
    [a.to_dtype(dtype), b.to_dtype(dtype)]
}

/// `y[n, o, i, j] = bias[o] + Σ_{c, a, b} w[o, c, a, b] · x[n, c', i·s + a·d − p, j·s + b·d − p]`,
/// `c' = c + group(o)·C/g`, zeros outside of the image.
#[track_caller]
pub fn forward(plan: &Conv2dPlan, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Tensor {
    const OP: &str = "conv2d";
    let [x, w] = operands(OP, [x, w], [plan.input_shape(), plan.weight_shape()]);
    if let Some(bias) = bias {
        same_device(OP, &[&x, bias]);
        check_bias(OP, bias.shape(), plan.geometry.o);
        // A bias of a wider type widens the result.
        if x.dtype().promote(bias.dtype()) != x.dtype() {
            return add_bias(OP, forward(plan, &x, &w, None), Some(bias));
        }
    }
    let bias = bias.map(|b| b.to_dtype(x.dtype()));
    let y = x.device().backend().conv2d(plan, &x, &w, bias.as_ref());
    y.unwrap_or_else(|| add_bias(OP, composed::forward(plan, &x, &w), bias.as_ref()))
}

/// The gradient of [`forward`] with respect to `x`: `dx[n, c', u, v] = Σ w[o, c, a, b] · dy[n, o, i, j]` over all
/// `i·s + a·d − p = u`, `j·s + b·d − p = v`.
#[track_caller]
pub fn input_grad(plan: &Conv2dPlan, dy: &Tensor, w: &Tensor) -> Tensor {
    let [dy, w] = operands("conv2d_input_grad", [dy, w], [plan.output_shape(), plan.weight_shape()]);
    dy.device().backend().conv2d_input_grad(plan, &dy, &w).unwrap_or_else(|| composed::input_grad(plan, &dy, &w))
}

/// The gradient of [`forward`] with respect to `w`:
/// `dw[o, c, a, b] = Σ_{n, i, j} dy[n, o, i, j] · x[n, c', i·s + a·d − p, j·s + b·d − p]`.
#[track_caller]
pub fn weight_grad(plan: &Conv2dPlan, x: &Tensor, dy: &Tensor) -> Tensor {
    let [x, dy] = operands("conv2d_weight_grad", [x, dy], [plan.input_shape(), plan.output_shape()]);
    x.device().backend().conv2d_weight_grad(plan, &x, &dy).unwrap_or_else(|| composed::weight_grad(plan, &x, &dy))
}

/// The bias has one entry for each of the `channels`.
#[track_caller]
pub fn check_bias(op: &'static str, bias: &Shape, channels: usize) {
    ensure!(*bias == [channels], Shape, op, "bias {bias} for {channels} output channels: it must be [{channels}]");
}

/// `y + bias`, one number per channel.
#[track_caller]
fn add_bias(op: &'static str, mut y: Tensor, bias: Option<&Tensor>) -> Tensor {
    let Some(bias) = bias else { return y };
    check_bias(op, bias.shape(), y.dims()[1]);
    let bias = bias.reshape([bias.numel(), 1, 1]);
    if y.dtype().promote(bias.dtype()) != y.dtype() {
        return y + bias;
    }
    y.add_assign(&bias);
    y
}

impl Tensor {
    /// One-dimensional convolution of `[N, C, L]` with `weight [O, C/groups, k]`, see [`conv2d`](Tensor::conv2d).
    #[track_caller]
    pub fn conv1d(&self, weight: &Tensor, bias: Option<&Tensor>, options: &Conv1dOptions) -> Tensor {
        let plan = Conv2dPlan::conv1d(self.shape(), weight.shape(), options);
        if let Some(bias) = bias {
            check_bias("conv1d", bias.shape(), plan.geometry.o);
        }
        forward(&plan, &self.unsqueeze(2), &weight.unsqueeze(2), bias).squeeze(2)
    }

    /// Two-dimensional convolution (cross-correlation, as every framework calls it):
    ///
    /// `y[n, o, i, j] = bias[o] + Σ_{c, a, b} weight[o, c, a, b] · x[n, c', i·s + a·d − p, j·s + b·d − p]`
    ///
    /// with `c' = c + group(o) · C/groups` and zeros outside the image. `[N, C, H, W]` with `weight [O, C/groups, kh, kw]`
    /// and `bias [O]` gives `[N, O, Ho, Wo]`, `Ho = ⌊(H + 2p − d(kh − 1) − 1) / s⌋ + 1`.
    ///
    /// dtypes are promoted; half types accumulate in f32.
    ///
    /// # Panics
    /// If an operand is no float, the channels do not fit the weight and the groups, or the kernel is larger than the
    /// padded input.
    #[track_caller]
    pub fn conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: &Conv2dOptions) -> Tensor {
        let plan = Conv2dPlan::conv2d(self.shape(), weight.shape(), options);
        forward(&plan, self, weight, bias)
    }

    /// Transposed two-dimensional convolution: each input value adds the kernel, scaled by it, to the output.
    ///
    /// `y[n, o', i·s + a·d − p, j·s + b·d − p] += weight[c, o, a, b] · x[n, c, i, j]`, `o' = o + group(c) · O/groups`, and
    /// `bias[o']` everywhere. `[N, C, H, W]` with `weight [C, O/groups, kh, kw]` gives `[N, O, Ho, Wo]`,
    /// `Ho = (H − 1)s − 2p + d(kh − 1) + output_padding + 1`.
    ///
    /// dtypes are promoted; half types accumulate in f32.
    ///
    /// # Panics
    /// If an operand is no float, the channels do not fit the weight and the groups, `output_padding` is below neither
    /// the stride nor the dilation, or the padding leaves nothing.
    #[track_caller]
    pub fn conv_transpose2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: &ConvTranspose2dOptions) -> Tensor {
        let plan = Conv2dPlan::conv_transpose2d(self.shape(), weight.shape(), options);
        add_bias("conv_transpose2d", input_grad(&plan, self, weight), bias)
    }
}
