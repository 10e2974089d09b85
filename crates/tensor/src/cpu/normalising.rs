//! Softmax, the norms and cross-entropy of tensors: dtypes and layouts on top of the row and plane kernels. Half types are
//! widened to f32 and the results narrowed; statistics stay in f32.

use super::channel_norm::{Backward, affine_planes, channel_moments};
use super::elementwise::binary;
use super::math::Real;
use super::{cross_entropy, layer_norm, rms_norm, softmax};
use crate::backend::{Binary, CrossEntropyRows};
use crate::storage::CpuBuffer;
use crate::{DType, Shape, Tensor};
use bytemuck::Pod;

/// Runs the body with `$T` bound to f32 or f64.
macro_rules! real {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::F64 => {
                type $T = f64;
                $body
            }
            d => unreachable!("{d} was widened before"),
        }
    };
}

/// Row-major, f32 or f64.
fn wide(x: &Tensor) -> Tensor {
    x.to_dtype(x.dtype().accumulator()).contiguous()
}

/// A new row-major tensor that `f` fills.
fn filled<T: Pod>(shape: impl Into<Shape>, dtype: DType, f: impl FnOnce(&mut [T])) -> Tensor {
    let shape = shape.into();
    let mut buffer = CpuBuffer::scratch::<T>(shape.numel());
    f(buffer.as_mut_slice());
    Tensor::from_cpu(buffer, shape, dtype)
}

/// A buffer of `n` elements that is about to become a tensor of shape `[n]`.
fn vector<T: Pod>(buffer: CpuBuffer, n: usize, dtype: DType) -> Tensor {
    debug_assert_eq!(buffer.as_slice::<T>().len(), n);
    Tensor::from_cpu(buffer, n, dtype)
}

fn slice<T: Pod>(x: &Option<Tensor>) -> Option<&[T]> {
    x.as_ref().map(|x| x.contiguous_slice())
}

/// Dimension `dim` exchanged with the last one (its own inverse).
fn last(x: &Tensor, dim: usize) -> Tensor {
    x.transpose(dim as isize, -1)
}

/// Which of the two.
#[derive(Clone, Copy)]
pub enum Softmax {
    Plain,
    Log,
}

pub fn softmax(kind: Softmax, x: &Tensor, dim: usize) -> Tensor {
    let rows = wide(&last(x, dim));
    let n = x.dims()[dim];
    let y = real!(rows.dtype(), T => filled::<T>(rows.shape(), rows.dtype(), |y| match kind {
        Softmax::Plain => softmax::softmax(rows.contiguous_slice(), y, n),
        Softmax::Log => softmax::log_softmax(rows.contiguous_slice(), y, n),
    }));
    last(&y.to_dtype(x.dtype()), dim)
}

pub fn softmax_backward(kind: Softmax, y: &Tensor, g: &Tensor, dim: usize) -> Tensor {
    let (rows, g) = (wide(&last(y, dim)), wide(&last(g, dim)));
    let n = y.dims()[dim];
    let dx = real!(rows.dtype(), T => filled::<T>(rows.shape(), rows.dtype(), |dx| match kind {
        Softmax::Plain => softmax::softmax_backward(rows.contiguous_slice(), g.contiguous_slice(), dx, n),
        Softmax::Log => softmax::log_softmax_backward(rows.contiguous_slice(), g.contiguous_slice(), dx, n),
    }));
    last(&dx.to_dtype(y.dtype()), dim)
}

pub fn layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> (Tensor, Tensor, Tensor) {
    let (wx, weight, bias) = (wide(x), weight.map(wide), bias.map(wide));
    let (dtype, rows, n) = (wx.dtype(), x.dims()[0], x.dims()[1]);
    real!(dtype, T => {
        let (mut mean, mut rstd) = (CpuBuffer::scratch::<T>(rows), CpuBuffer::scratch::<T>(rows));
        let y = filled::<T>(x.shape(), dtype, |y| {
            let (mean, rstd) = (mean.as_mut_slice(), rstd.as_mut_slice());
            layer_norm::layer_norm(
                wx.contiguous_slice(), slice(&weight), slice(&bias), T::from_f64(eps), y, mean, rstd, n,
            );
        });
        (y.to_dtype(x.dtype()), vector::<T>(mean, rows, dtype), vector::<T>(rstd, rows, dtype))
    })
}

pub fn add_layer_norm(
    x: &Tensor,
    residual: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> (Tensor, Tensor, Tensor, Tensor) {
    if x.dtype().is_half() {
        // The sum is rounded before it is normalised.
        let sum = binary(Binary::Add, x, residual);
        let (y, mean, rstd) = layer_norm(&sum, weight, bias, eps);
        return (y, sum, mean, rstd);
    }
    let (x, residual, weight, bias) = (wide(x), wide(residual), weight.map(wide), bias.map(wide));
    let (dtype, rows, n) = (x.dtype(), x.dims()[0], x.dims()[1]);
    real!(dtype, T => {
        let [mut mean, mut rstd] = [0; 2].map(|_| CpuBuffer::scratch::<T>(rows));
        let mut y = CpuBuffer::scratch::<T>(rows * n);
        let sum = filled::<T>(x.shape(), dtype, |sum| {
            let operands = [x.contiguous_slice(), residual.contiguous_slice()];
            let outputs = [y.as_mut_slice(), mean.as_mut_slice(), rstd.as_mut_slice()];
            layer_norm::add_layer_norm(operands, slice(&weight), slice(&bias), T::from_f64(eps), sum, outputs, n);
        });
        let y = Tensor::from_cpu(y, x.shape(), dtype);
        (y, sum, vector::<T>(mean, rows, dtype), vector::<T>(rstd, rows, dtype))
    })
}

pub fn layer_norm_backward(
    x: &Tensor,
    weight: Option<&Tensor>,
    mean: &Tensor,
    rstd: &Tensor,
    g: &Tensor,
    others: Option<&Tensor>,
    parameters: bool,
) -> (Tensor, Option<(Tensor, Tensor)>) {
    let (wx, weight, g, others) = (wide(x), weight.map(wide), wide(g), others.map(wide));
    let (mean, rstd) = (mean.contiguous(), rstd.contiguous());
    let (dtype, n) = (wx.dtype(), x.dims()[1]);
    real!(dtype, T => {
        let (mut dw, mut db) = (CpuBuffer::zeroed::<T>(n), CpuBuffer::zeroed::<T>(n));
        let dx = filled::<T>(x.shape(), dtype, |dx| {
            layer_norm::layer_norm_backward(
                wx.contiguous_slice(),
                slice(&weight),
                mean.contiguous_slice(),
                rstd.contiguous_slice(),
                g.contiguous_slice(),
                slice(&others),
                dx,
                parameters.then(|| dw.as_mut_slice()),
                parameters.then(|| db.as_mut_slice()),
                n,
            );
        });
        let narrow = |b: CpuBuffer| vector::<T>(b, n, dtype).to_dtype(x.dtype());
        (dx.to_dtype(x.dtype()), parameters.then(|| (narrow(dw), narrow(db))))
    })
}

pub fn rms_norm(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> (Tensor, Tensor) {
    let (wx, weight) = (wide(x), weight.map(wide));
    let (dtype, rows, n) = (wx.dtype(), x.dims()[0], x.dims()[1]);
    real!(dtype, T => {
        let mut rstd = CpuBuffer::scratch::<T>(rows);
        let y = filled::<T>(x.shape(), dtype, |y| {
            rms_norm::rms_norm(wx.contiguous_slice(), slice(&weight), T::from_f64(eps), y, rstd.as_mut_slice(), n);
        });
        (y.to_dtype(x.dtype()), vector::<T>(rstd, rows, dtype))
    })
}

pub fn add_rms_norm(x: &Tensor, residual: &Tensor, weight: Option<&Tensor>, eps: f64) -> (Tensor, Tensor, Tensor) {
    if x.dtype().is_half() {
        // The sum is rounded before it is normalised.
        let sum = binary(Binary::Add, x, residual);
        let (y, rstd) = rms_norm(&sum, weight, eps);
        return (y, sum, rstd);
    }
    let (x, residual, weight) = (wide(x), wide(residual), weight.map(wide));
    let (dtype, rows, n) = (x.dtype(), x.dims()[0], x.dims()[1]);
    real!(dtype, T => {
        let [mut rstd, mut y] = [rows, rows * n].map(CpuBuffer::scratch::<T>);
        let sum = filled::<T>(x.shape(), dtype, |sum| {
            let operands = [x.contiguous_slice(), residual.contiguous_slice()];
            let outputs = [y.as_mut_slice(), rstd.as_mut_slice()];
            rms_norm::add_rms_norm(operands, slice(&weight), T::from_f64(eps), sum, outputs, n);
        });
        (Tensor::from_cpu(y, x.shape(), dtype), sum, vector::<T>(rstd, rows, dtype))
    })
}

pub fn rms_norm_backward(
    x: &Tensor,
    weight: Option<&Tensor>,
    rstd: &Tensor,
    g: &Tensor,
    others: Option<&Tensor>,
    parameters: bool,
) -> (Tensor, Option<Tensor>) {
    let (wx, weight, g, others) = (wide(x), weight.map(wide), wide(g), others.map(wide));
    let rstd = rstd.contiguous();
    let (dtype, n) = (wx.dtype(), x.dims()[1]);
    real!(dtype, T => {
        let mut dw = CpuBuffer::zeroed::<T>(n);
        let dx = filled::<T>(x.shape(), dtype, |dx| {
            rms_norm::rms_norm_backward(
                wx.contiguous_slice(),
                slice(&weight),
                rstd.contiguous_slice(),
                g.contiguous_slice(),
                slice(&others),
                dx,
                parameters.then(|| dw.as_mut_slice()),
                n,
            );
        });
        (dx.to_dtype(x.dtype()), parameters.then(|| vector::<T>(dw, n, dtype).to_dtype(x.dtype())))
    })
}

/// Planes shorter than this are gathered by channel first: `[B, C, S]` becomes `[1, C, B·S]`.
const SHORT_PLANE: usize = 16;

/// `[B, C, S]` as the kernels are to see it.
fn planes(x: &Tensor) -> Tensor {
    let [b, c, s] = [x.dims()[0], x.dims()[1], x.dims()[2]];
    if s >= SHORT_PLANE || b <= 1 { wide(x) } else { wide(&x.transpose(0, 1)).reshape([1, c, b * s]) }
}

/// The inverse of [`planes`].
fn from_planes(y: Tensor, like: &Tensor) -> Tensor {
    let [b, c, s] = [like.dims()[0], like.dims()[1], like.dims()[2]];
    let y = y.to_dtype(like.dtype());
    if y.shape() == like.shape() { y } else { y.reshape([c, b, s]).transpose(0, 1) }
}

pub fn batch_norm_statistics(x: &Tensor) -> (Tensor, Tensor) {
    let x = planes(x);
    let (dtype, c) = (x.dtype(), x.dims()[1]);
    real!(dtype, T => {
        let (mut mean, mut variance) = (CpuBuffer::scratch::<T>(c), CpuBuffer::scratch::<T>(c));
        let (m, v) = (mean.as_mut_slice::<T>(), variance.as_mut_slice::<T>());
        channel_moments(x.contiguous_slice(), x.dims()[0], x.dims()[2], m, v);
        (vector::<T>(mean, c, dtype), vector::<T>(variance, c, dtype))
    })
}

pub fn batch_norm_apply(
    x: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Tensor {
    let (p, mean, rstd, weight, bias) = (planes(x), wide(mean), wide(rstd), weight.map(wide), bias.map(wide));
    let [b, c, s] = [p.dims()[0], p.dims()[1], p.dims()[2]];
    let y = real!(p.dtype(), T => {
        let (weight, bias) = (slice::<T>(&weight), slice::<T>(&bias));
        let (mean, rstd) = (mean.contiguous_slice::<T>(), rstd.contiguous_slice::<T>());
        let each = |f: &dyn Fn(usize) -> T| (0..b * c).map(|p| f(p % c)).collect::<Vec<T>>();
        let scale = each(&|k| rstd[k] * weight.map_or(1.0, |w| w[k]));
        let shift = each(&|k| bias.map_or(0.0, |b| b[k]));
        filled::<T>(p.shape(), p.dtype(), |y| {
            affine_planes(p.contiguous_slice(), &each(&|k| mean[k]), &scale, &shift, y, s);
        })
    });
    from_planes(y, x)
}

pub fn batch_norm_backward(
    x: &Tensor,
    weight: Option<&Tensor>,
    mean: &Tensor,
    rstd: &Tensor,
    g: &Tensor,
    training: bool,
) -> (Tensor, Tensor, Tensor) {
    let (p, gp, mean, rstd, weight) = (planes(x), planes(g), wide(mean), wide(rstd), weight.map(wide));
    let [b, c, s] = [p.dims()[0], p.dims()[1], p.dims()[2]];
    real!(p.dtype(), T => {
        let (m, r) = (mean.contiguous_slice::<T>(), rstd.contiguous_slice::<T>());
        let each = |f: &dyn Fn(usize) -> T| (0..b * c).map(|p| f(p % c)).collect::<Vec<T>>();
        let (m, r) = (each(&|k| m[k]), each(&|k| r[k]));
        let set = |p: usize| p % c;
        let backward = Backward {
            x: p.contiguous_slice(),
            g: gp.contiguous_slice(),
            mean: &m,
            rstd: &r,
            weight: slice(&weight),
            size: s,
            sets: if training { Some((c, &set)) } else { None },
        };
        let (dx, dw, db) = channel_backward(&backward, &p, c);
        (from_planes(dx, x), dw.to_dtype(x.dtype()), db.to_dtype(x.dtype()))
    })
}

fn channel_backward<T: Real + Pod>(
    backward: &Backward<'_, T>,
    x: &Tensor,
    channels: usize,
) -> (Tensor, Tensor, Tensor) {
    let dtype = x.dtype();
    let (mut dw, mut db) = (CpuBuffer::zeroed::<T>(channels), CpuBuffer::zeroed::<T>(channels));
    let dx = filled::<T>(x.shape(), dtype, |dx| backward.run(dx, dw.as_mut_slice(), db.as_mut_slice()));
    (dx, vector::<T>(dw, channels, dtype), vector::<T>(db, channels, dtype))
}

pub fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> (Tensor, Tensor, Tensor) {
    let (p, weight, bias) = (wide(x), weight.map(wide), bias.map(wide));
    let [b, c, s] = [p.dims()[0], p.dims()[1], p.dims()[2]];
    let (dtype, sets, per) = (p.dtype(), b * groups, c / groups);
    real!(dtype, T => {
        let (mut mean, mut rstd) = (CpuBuffer::scratch::<T>(sets), CpuBuffer::scratch::<T>(sets));
        let (m, r) = (mean.as_mut_slice::<T>(), rstd.as_mut_slice::<T>());
        // A group's channels lie together: the sets are rows.
        channel_moments(p.contiguous_slice(), 1, per * s, m, r);
        r.iter_mut().for_each(|v| *v = 1.0 / (*v + T::from_f64(eps)).sqrt());
        let (weight, bias) = (slice::<T>(&weight), slice::<T>(&bias));
        let each = |f: &dyn Fn(usize) -> T| (0..b * c).map(f).collect::<Vec<T>>();
        let scale = each(&|p| r[p / per] * weight.map_or(1.0, |w| w[p % c]));
        let shift = each(&|p| bias.map_or(0.0, |b| b[p % c]));
        let center = each(&|p| m[p / per]);
        let y = filled::<T>(x.shape(), dtype, |y| affine_planes(p.contiguous_slice(), &center, &scale, &shift, y, s));
        (y.to_dtype(x.dtype()), vector::<T>(mean, sets, dtype), vector::<T>(rstd, sets, dtype))
    })
}

pub fn group_norm_backward(
    x: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    mean: &Tensor,
    rstd: &Tensor,
    g: &Tensor,
) -> (Tensor, Tensor, Tensor) {
    let (p, gp, mean, rstd, weight) = (wide(x), wide(g), wide(mean), wide(rstd), weight.map(wide));
    let [b, c, s] = [p.dims()[0], p.dims()[1], p.dims()[2]];
    let per = c / groups;
    real!(p.dtype(), T => {
        let (m, r) = (mean.contiguous_slice::<T>(), rstd.contiguous_slice::<T>());
        let each = |v: &[T]| (0..b * c).map(|p| v[p / per]).collect::<Vec<T>>();
        let set = |p: usize| p / per;
        let backward = Backward {
            x: p.contiguous_slice(),
            g: gp.contiguous_slice(),
            mean: &each(m),
            rstd: &each(r),
            weight: slice(&weight),
            size: s,
            sets: Some((b * groups, &set)),
        };
        let (dx, dw, db) = channel_backward(&backward, &p, c);
        (dx.to_dtype(x.dtype()), dw.to_dtype(x.dtype()), db.to_dtype(x.dtype()))
    })
}

fn options<'a, T: Real + Pod>(o: &CrossEntropyRows, weight: &'a Option<Tensor>) -> cross_entropy::Options<'a, T> {
    cross_entropy::Options {
        // No target is i64::MIN: it would have been out of range.
        ignore_index: o.ignore_index.unwrap_or(i64::MIN),
        weight: slice(weight),
        label_smoothing: T::from_f64(o.label_smoothing),
    }
}

pub fn cross_entropy(x: &Tensor, targets: &Tensor, o: &CrossEntropyRows) -> (Tensor, Tensor, Tensor) {
    let (x, targets) = (wide(x), targets.contiguous());
    let weight = o.weight.map(|w| w.to_dtype(x.dtype()).contiguous());
    let (dtype, rows, v) = (x.dtype(), x.dims()[0], x.dims()[1]);
    let t = targets.contiguous_slice::<i64>();
    real!(dtype, T => {
        let options = options::<T>(o, &weight);
        let mut lse = CpuBuffer::scratch::<T>(rows);
        let loss = filled::<T>(rows, dtype, |loss| {
            cross_entropy::cross_entropy(x.contiguous_slice(), t, &options, loss, lse.as_mut_slice(), v);
        });
        let total = cross_entropy::target_weight(t, &options);
        (loss, vector::<T>(lse, rows, dtype), Tensor::from_cpu(CpuBuffer::from_slice(&[total]), (), dtype))
    })
}

pub fn cross_entropy_backward(
    x: &Tensor,
    targets: &Tensor,
    lse: &Tensor,
    scale: &Tensor,
    o: &CrossEntropyRows,
) -> Tensor {
    let (wx, targets, lse, scale) = (wide(x), targets.contiguous(), wide(lse), wide(scale));
    let weight = o.weight.map(|w| w.to_dtype(wx.dtype()).contiguous());
    let v = x.dims()[1];
    let dx = real!(wx.dtype(), T => filled::<T>(x.shape(), wx.dtype(), |dx| {
        cross_entropy::cross_entropy_backward(
            wx.contiguous_slice(),
            targets.contiguous_slice(),
            lse.contiguous_slice(),
            scale.contiguous_slice(),
            &options::<T>(o, &weight),
            dx,
            v,
        );
    }));
    dx.to_dtype(x.dtype())
}
