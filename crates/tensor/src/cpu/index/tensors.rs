//! The kernels on tensors of any strides and dtype. The op floor has checked shapes and indices.

use super::{IndexError, add, select};
use crate::cpu::accumulate::Accumulate;
use crate::cpu::elementwise::cast;
use crate::cpu::parallel::*;
use crate::storage::CpuBuffer;
use crate::{DType, Tensor};
use bytemuck::Pod;

/// The extents before `dim`, of `dim`, and after it, each as one.
fn around(x: &Tensor, dim: usize) -> (usize, usize, usize) {
    let extent = |dims: &[usize]| dims.iter().product();
    (extent(&x.dims()[..dim]), x.dims()[dim], extent(&x.dims()[dim + 1..]))
}

fn checked(result: Result<(), IndexError>) {
    result.unwrap_or_else(|(at, i)| panic!("index {i} at position {at}, which the op floor should have found"));
}

/// `out[…, i, …] = x[…, index[…, i, …], …]`.
pub fn gather(x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
    fn run<T: Pod + Send + Sync>(x: &Tensor, dim: usize, index: &Tensor) -> CpuBuffer {
        let mut out = CpuBuffer::scratch::<T>(index.numel());
        let (data, indices) = (x.contiguous_slice::<T>(), index.contiguous_slice::<i64>());
        checked(select::gather(around(x, dim), index.dims()[dim], data, indices, out.as_mut_slice()));
        out
    }
    let (x, index) = (x.contiguous(), index.contiguous());
    let buffer = match x.dtype().size() {
        8 => run::<u64>(&x, dim, &index),
        4 => run::<u32>(&x, dim, &index),
        2 => run::<u16>(&x, dim, &index),
        _ => run::<u8>(&x, dim, &index),
    };
    Tensor::from_cpu(buffer, index.shape(), x.dtype())
}

/// Whole slices `index[j]` along `dim`.
pub fn index_select(x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
    fn run<T: Pod + Send + Sync>(x: &Tensor, dim: usize, index: &Tensor, n: usize) -> CpuBuffer {
        let mut out = CpuBuffer::scratch::<T>(n);
        let (data, indices) = (x.contiguous_slice::<T>(), index.contiguous_slice::<i64>());
        checked(select::index_select(around(x, dim), data, indices, out.as_mut_slice()));
        out
    }
    let (x, index) = (x.contiguous(), index.contiguous());
    let shape = x.shape().with(dim, index.numel());
    let n = shape.numel();
    let buffer = match x.dtype().size() {
        8 => run::<u64>(&x, dim, &index, n),
        4 => run::<u32>(&x, dim, &index, n),
        2 => run::<u16>(&x, dim, &index, n),
        _ => run::<u8>(&x, dim, &index, n),
    };
    Tensor::from_cpu(buffer, shape, x.dtype())
}

/// `out = x`, to which `add(data, sizes, indices, src)` adds. Half types are added up in f32 and rounded once.
macro_rules! adding {
    ($x:ident, $src:ident, $run:ident($($argument:expr),*)) => {
        match $x.dtype() {
            DType::F32 => $run::<f32>($x, $src, $($argument),*),
            DType::F64 => $run::<f64>($x, $src, $($argument),*),
            DType::I64 => $run::<i64>($x, $src, $($argument),*),
            DType::I32 => $run::<i32>($x, $src, $($argument),*),
            DType::I8 => $run::<i8>($x, $src, $($argument),*),
            DType::U8 => $run::<u8>($x, $src, $($argument),*),
            DType::F16 | DType::BF16 => {
                let (wide, src) = (cast($x, DType::F32), cast($src, DType::F32));
                cast(&$run::<f32>(&wide, &src, $($argument),*), $x.dtype())
            }
            DType::Bool => unreachable!("the op floor lets no bool through"),
        }
    };
}

/// A row-major copy of `x`, its elements to write, and `src` row-major.
fn copy_and<T: Pod>(x: &Tensor, src: &Tensor, add: impl FnOnce(&[T], &mut [T]) -> Result<(), IndexError>) -> Tensor {
    let (mut out, src) = (x.copy(), src.contiguous());
    checked(add(src.contiguous_slice(), out.unique_slice_mut().expect("a fresh copy")));
    out
}

/// `out = x; out[…, index[…, i, …], …] += src[…, i, …]`.
pub fn scatter_add(x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
    fn run<T: Accumulate + Pod>(x: &Tensor, src: &Tensor, dim: usize, index: &Tensor) -> Tensor {
        let indices = index.contiguous_slice::<i64>();
        copy_and::<T>(x, src, |src, out| add::scatter_add(around(x, dim), index.dims()[dim], indices, src, out))
    }
    let index = index.contiguous();
    adding!(x, src, run(dim, &index))
}

/// `out = x; out[…, index[j], …] += src[…, j, …]`.
pub fn index_add(x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
    fn run<T: Accumulate + Pod>(x: &Tensor, src: &Tensor, dim: usize, index: &Tensor) -> Tensor {
        let indices = index.contiguous_slice::<i64>();
        copy_and::<T>(x, src, |src, out| add::index_add(around(x, dim), indices, src, out))
    }
    let index = index.contiguous();
    adding!(x, src, run(dim, &index))
}

/// Smallest and largest index.
pub fn range(index: &Tensor) -> (i64, i64) {
    let index = index.contiguous();
    let fold = |x: &[i64]| x.iter().fold((i64::MAX, i64::MIN), |(lo, hi), &i| (lo.min(i), hi.max(i)));
    let both = |a: (i64, i64), b: (i64, i64)| (a.0.min(b.0), a.1.max(b.1));
    let parts = index.contiguous_slice::<i64>().par_chunks(1 << 14).map_to_vec(fold);
    parts.into_iter().fold((i64::MAX, i64::MIN), both)
}
