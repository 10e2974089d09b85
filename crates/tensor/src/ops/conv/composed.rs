//! Convolutions from matrix products, for backends without kernels of their own.
//!
//! The windows of the padded image, as the columns of a matrix `X̂ [C/g·kh·kw, Ho·Wo]` per image and group (*im2col*), turn
//! the three into `Y = W X̂`, `dX̂ = Wᵀ dY` (whose columns are then added where they came from) and `dW = Σ dY X̂ᵀ`.

use super::Conv2dPlan;
use crate::{Layout, Shape, Tensor};

/// Where an operand is empty, so is every sum: the result, of the given shape, is zero.
fn empty(p: &Conv2dPlan, like: &Tensor, shape: Shape) -> Option<Tensor> {
    let shapes = [p.input_shape(), p.weight_shape(), p.output_shape()];
    shapes.iter().any(|s| s.numel() == 0).then(|| Tensor::full_on(shape, 0.0, like.dtype(), &like.device()))
}

/// A zero-padded image `[N, C, H + 2p, W + 2p]`.
fn padded_shape(p: &Conv2dPlan) -> Shape {
    let g = &p.geometry;
    [g.n, g.c, g.h + 2 * g.padding.0, g.w + 2 * g.padding.1].into()
}

/// Where the image lies in the padded one.
fn interior(p: &Conv2dPlan) -> Layout {
    let (g, padded) = (&p.geometry, padded_shape(p));
    Layout { shape: p.input_shape(), offset: g.padding.0 * padded[3] + g.padding.1, strides: padded.strides() }
}

/// `X̂ [N, G, C/g·kh·kw, Ho·Wo]`.
fn columns(p: &Conv2dPlan, x: &Tensor) -> Tensor {
    let (g, shape) = (&p.geometry, padded_shape(p));
    let mut padded = Tensor::full_on(&shape, 0.0, x.dtype(), &x.device());
    x.device().backend().write(&mut padded, &interior(p), x);
    let s = shape.strides();
    let cg = g.c / g.groups;
    let windows = [g.n, g.groups, cg, g.kh, g.kw, p.out.0, p.out.1];
    let strides = [
        s[0],
        s[1] * cg as isize,
        s[1],
        s[2] * g.dilation.0 as isize,
        g.dilation.1 as isize,
        s[2] * g.stride.0 as isize,
        g.stride.1 as isize,
    ];
    padded.as_strided(windows, &strides, 0).reshape([g.n, g.groups, cg * g.kh * g.kw, p.out.0 * p.out.1])
}

/// `W [G, O/g, C/g·kh·kw]`.
fn rows(p: &Conv2dPlan, w: &Tensor) -> Tensor {
    let g = &p.geometry;
    w.reshape([g.groups, g.o / g.groups, g.c / g.groups * g.kh * g.kw])
}

/// `dY [N, G, O/g, Ho·Wo]`.
fn outputs(p: &Conv2dPlan, dy: &Tensor) -> Tensor {
    let g = &p.geometry;
    dy.reshape([g.n, g.groups, g.o / g.groups, p.out.0 * p.out.1])
}

/// [`forward`](super::forward) as a product.
pub fn forward(p: &Conv2dPlan, x: &Tensor, w: &Tensor) -> Tensor {
    if let Some(zeros) = empty(p, x, p.output_shape()) {
        return zeros;
    }
    rows(p, w).matmul(&columns(p, x)).reshape(p.output_shape())
}

/// [`input_grad`](super::input_grad): a product, whose rows, one per channel and tap, are added to the pixels they read.
pub fn input_grad(p: &Conv2dPlan, dy: &Tensor, w: &Tensor) -> Tensor {
    if let Some(zeros) = empty(p, dy, p.input_shape()) {
        return zeros;
    }
    let (g, shape) = (&p.geometry, padded_shape(p));
    let columns = rows(p, w).t().matmul(&outputs(p, dy)).reshape([g.n, g.c, g.kh, g.kw, p.out.0, p.out.1]);
    let mut padded = Tensor::full_on(&shape, 0.0, dy.dtype(), &dy.device());
    let s = shape.strides();
    for (a, b) in (0..g.kh).flat_map(|a| (0..g.kw).map(move |b| (a, b))) {
        let region = Layout {
            shape: [g.n, g.c, p.out.0, p.out.1].into(),
            strides: [s[0], s[1], s[2] * g.stride.0 as isize, g.stride.1 as isize].into_iter().collect(),
            offset: a * g.dilation.0 * shape[3] + b * g.dilation.1,
        };
        let sum = padded.as_strided(&region.shape, &region.strides, region.offset)
            + columns.select(2, a as isize).select(2, b as isize);
        dy.device().backend().write(&mut padded, &region, &sum);
    }
    let inside = interior(p);
    padded.as_strided(&inside.shape, &inside.strides, inside.offset).contiguous()
}

/// [`weight_grad`](super::weight_grad) as one product over all images.
pub fn weight_grad(p: &Conv2dPlan, x: &Tensor, dy: &Tensor) -> Tensor {
    if let Some(zeros) = empty(p, x, p.weight_shape()) {
        return zeros;
    }
    let g = &p.geometry;
    let pixels = g.n * p.out.0 * p.out.1;
    let dy = outputs(p, dy).permute([1, 2, 0, 3]).reshape([g.groups, g.o / g.groups, pixels]);
    let k = g.c / g.groups * g.kh * g.kw;
    let columns = columns(p, x).permute([1, 0, 3, 2]).reshape([g.groups, pixels, k]);
    dy.matmul(&columns).reshape(p.weight_shape())
}
