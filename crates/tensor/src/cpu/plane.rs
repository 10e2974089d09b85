//! Pooling and interpolation on tensors: contiguous operands, half types computed in f32.

use super::interpolate::{interpolate, interpolate_backward};
use super::pool::{self, AdaptivePool2dGeometry, Pool2dGeometry, PoolElement};
use super::widened;
use crate::backend::PlaneMap;
use crate::cpu::parallel::*;
use crate::ops::pool::with_planes;
use crate::storage::CpuBuffer;
use crate::{DType, Shape, Tensor};
use bytemuck::Pod;

/// `f::<f32>` or `f::<f64>` of a float tensor, half types through f32.
macro_rules! in_float {
    ($x:expr, $f:ident($($arg:expr),*)) => {
        widened([$x], |[x]| match x.dtype() {
            DType::F64 => $f::<f64>($($arg,)* x),
            _ => $f::<f32>($($arg,)* x),
        })
    };
}

fn map_as<T: PoolElement + Pod>(map: &PlaneMap, x: &Tensor) -> Tensor {
    let shape = with_planes(x.shape(), map.out_size());
    let (x, mut out) = (x.contiguous(), CpuBuffer::scratch::<T>(shape.numel()));
    let (from, to) = (x.contiguous_slice::<T>(), out.as_mut_slice::<T>());
    match map {
        PlaneMap::AvgPool { windows, count_include_pad } => pool::avg_pool2d(windows, *count_include_pad, from, to),
        PlaneMap::AdaptiveAvgPool(bins) => pool::adaptive_avg_pool2d(bins, from, to),
        PlaneMap::Interpolate { sizes, mode } => interpolate(sizes, *mode, from, to),
    }
    Tensor::from_cpu(out, shape, x.dtype())
}

fn adjoint_as<T: PoolElement + Pod>(map: &PlaneMap, dy: &Tensor) -> Tensor {
    let shape = with_planes(dy.shape(), map.in_size());
    let (dy, mut out) = (dy.contiguous(), CpuBuffer::zeroed::<T>(shape.numel()));
    let (from, to) = (dy.contiguous_slice::<T>(), out.as_mut_slice::<T>());
    match map {
        PlaneMap::AvgPool { windows, count_include_pad } => {
            pool::avg_pool2d_backward(windows, *count_include_pad, from, to)
        }
        PlaneMap::AdaptiveAvgPool(bins) => pool::adaptive_avg_pool2d_backward(bins, from, to),
        PlaneMap::Interpolate { sizes, mode } => interpolate_backward(sizes, *mode, from, to),
    }
    Tensor::from_cpu(out, shape, dy.dtype())
}

/// [`ops::pool::apply_map`](crate::ops::pool::apply_map).
pub fn plane_map(map: &PlaneMap, x: &Tensor) -> Tensor {
    in_float!(x, map_as(map))
}
/// [`ops::pool::apply_adjoint`](crate::ops::pool::apply_adjoint).
pub fn plane_map_adjoint(map: &PlaneMap, dy: &Tensor) -> Tensor {
    in_float!(dy, adjoint_as(map))
}

/// What fills values and indices from the input.
trait Maximum<T>: Fn(&[T], &mut [T], &mut [i64]) {}
impl<T, F: Fn(&[T], &mut [T], &mut [i64])> Maximum<T> for F {}

fn maximum_as<T: PoolElement + Pod>(out: (usize, usize), f: impl Maximum<T>, x: &Tensor) -> (Tensor, Tensor) {
    let shape = with_planes(x.shape(), out);
    let (x, n) = (x.contiguous(), shape.numel());
    let (mut y, mut index) = (CpuBuffer::scratch::<T>(n), CpuBuffer::scratch::<i64>(n));
    f(x.contiguous_slice(), y.as_mut_slice(), index.as_mut_slice());
    (Tensor::from_cpu(y, &shape, x.dtype()), Tensor::from_cpu(index, &shape, DType::I64))
}

fn maximum(out: (usize, usize), x: &Tensor, single: impl Maximum<f32>, double: impl Maximum<f64>) -> (Tensor, Tensor) {
    match x.dtype() {
        DType::F64 => maximum_as(out, double, x),
        dtype => {
            let (y, index) = maximum_as(out, single, &x.to_dtype(DType::F32));
            (y.to_dtype(dtype), index)
        }
    }
}

/// [`Tensor::max_pool2d_with_index`].
pub fn max_pool2d(geo: &Pool2dGeometry, x: &Tensor) -> (Tensor, Tensor) {
    maximum(geo.out_size(), x, |x, y, i| pool::max_pool2d(geo, x, y, i), |x, y, i| pool::max_pool2d(geo, x, y, i))
}
/// [`Tensor::adaptive_max_pool2d_with_index`].
pub fn adaptive_max_pool2d(geo: &AdaptivePool2dGeometry, x: &Tensor) -> (Tensor, Tensor) {
    maximum(
        (geo.ho, geo.wo),
        x,
        |x, y, i| pool::adaptive_max_pool2d(geo, x, y, i),
        |x, y, i| pool::adaptive_max_pool2d(geo, x, y, i),
    )
}

/// Elements of a plane: the last two dimensions.
fn area(shape: &Shape) -> usize {
    shape[shape.rank() - 2] * shape[shape.rank() - 1]
}

fn gather_as<T: PoolElement + Pod>(index: &Tensor, x: &Tensor) -> Tensor {
    let (x, index) = (x.contiguous(), index.contiguous());
    let (from, to) = (area(x.shape()), area(index.shape()));
    // Planes without elements have no places: every index is −1.
    let mut out = CpuBuffer::zeroed::<T>(if from == 0 { index.numel() } else { 0 });
    if from > 0 && index.numel() > 0 {
        out = CpuBuffer::scratch::<T>(index.numel());
        let planes = out.as_mut_slice::<T>().par_chunks_mut(to).zip(index.contiguous_slice::<i64>().par_chunks(to));
        planes.zip(x.contiguous_slice::<T>().par_chunks(from)).for_each(|((y, index), x)| {
            for (y, &i) in y.iter_mut().zip(index) {
                *y = if i < 0 { T::zero() } else { x[i as usize] };
            }
        });
    }
    Tensor::from_cpu(out, index.shape(), x.dtype())
}

fn scatter_as<T: PoolElement + Pod>(index: &Tensor, h: usize, w: usize, dy: &Tensor) -> Tensor {
    let shape = with_planes(dy.shape(), (h, w));
    let (dy, index) = (dy.contiguous(), index.contiguous());
    let mut out = CpuBuffer::scratch::<T>(shape.numel());
    let (values, places) = (dy.contiguous_slice::<T>(), index.contiguous_slice::<i64>());
    pool::scatter_to_planes(places, values, area(dy.shape()), out.as_mut_slice(), h * w);
    Tensor::from_cpu(out, shape, dy.dtype())
}

/// [`ops::pool::plane_gather`](crate::ops::pool::plane_gather).
pub fn plane_gather(x: &Tensor, index: &Tensor) -> Tensor {
    in_float!(x, gather_as(index))
}
/// [`ops::pool::plane_scatter`](crate::ops::pool::plane_scatter).
pub fn plane_scatter(dy: &Tensor, index: &Tensor, h: usize, w: usize) -> Tensor {
    in_float!(dy, scatter_as(index, h, w))
}
