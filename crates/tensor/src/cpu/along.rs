//! Kernels of rows, applied along any dimension of a tensor: order and running sums.

use super::elementwise::cast;
use super::scan;
use super::sort::{self, TotalOrder};
use crate::storage::CpuBuffer;
use crate::{DType, Shape, Tensor};
use bytemuck::Pod;

/// `x` row-major with dimension `dim` moved to the end, and how many rows that makes.
fn rows(x: &Tensor, dim: usize) -> (Tensor, usize) {
    let rows = x.transpose(dim as isize, -1).contiguous();
    let count = x.dims().iter().enumerate().filter(|&(d, _)| d != dim).map(|(_, &n)| n).product();
    (rows, count)
}

/// A row-major result `[…, k]` whose last dimension goes back to where `dim` is.
fn back(buffer: CpuBuffer, moved: &Tensor, k: usize, dtype: DType, dim: usize) -> Tensor {
    let shape: Shape = moved.shape().with(moved.rank() - 1, k);
    Tensor::from_cpu(buffer, shape, dtype).transpose(dim as isize, -1).contiguous()
}

/// Runs the body with `$T` bound to a type that has the order of the dtype's values, and `$x` of that type.
macro_rules! ordered {
    ($x:ident, $T:ident => $body:expr) => {
        match $x.dtype() {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::F64 => {
                type $T = f64;
                $body
            }
            // Widening keeps the order, and narrowing gives the same value back.
            DType::F16 | DType::BF16 => {
                type $T = f32;
                let $x = &cast($x, DType::F32);
                $body
            }
            DType::I64 => {
                type $T = i64;
                $body
            }
            DType::I32 => {
                type $T = i32;
                $body
            }
            DType::I8 => {
                type $T = i8;
                $body
            }
            // Truth is a byte that is 0 or 1.
            DType::U8 | DType::Bool => {
                type $T = u8;
                $body
            }
        }
    };
}

/// Index of the largest or smallest element along `dim`, which becomes extent 1.
pub fn arg_reduce(largest: bool, x: &Tensor, dim: usize) -> Tensor {
    fn run<T: TotalOrder + Pod>(largest: bool, x: &Tensor, dim: usize) -> Tensor {
        let (moved, count) = rows(x, dim);
        let mut out = CpuBuffer::scratch::<i64>(count);
        let kernel = if largest { sort::argmax::<T> } else { sort::argmin::<T> };
        kernel(count, x.dims()[dim], moved.contiguous_slice(), out.as_mut_slice());
        back(out, &moved, 1, DType::I64, dim)
    }
    ordered!(x, T => run::<T>(largest, x, dim))
}

/// Stable sort along `dim`: values and indices.
pub fn sort(x: &Tensor, dim: usize, descending: bool) -> (Tensor, Tensor) {
    fn run<T: TotalOrder + Pod>(x: &Tensor, dim: usize, descending: bool) -> (CpuBuffer, CpuBuffer, Tensor) {
        let (moved, count) = rows(x, dim);
        let n = x.dims()[dim];
        let (mut values, mut indices) = (CpuBuffer::scratch::<T>(count * n), CpuBuffer::scratch::<i64>(count * n));
        let data = moved.contiguous_slice::<T>();
        sort::sort(count, n, descending, data, values.as_mut_slice(), indices.as_mut_slice());
        (values, indices, moved)
    }
    pair(x, dim, x.dims()[dim], ordered!(x, T => run::<T>(x, dim, descending)))
}

/// The `k` largest or smallest along `dim`, best first: values and indices.
pub fn topk(x: &Tensor, k: usize, dim: usize, largest: bool) -> (Tensor, Tensor) {
    fn run<T: TotalOrder + Pod>(x: &Tensor, k: usize, dim: usize, largest: bool) -> (CpuBuffer, CpuBuffer, Tensor) {
        let (moved, count) = rows(x, dim);
        let (mut values, mut indices) = (CpuBuffer::scratch::<T>(count * k), CpuBuffer::scratch::<i64>(count * k));
        let data = moved.contiguous_slice::<T>();
        sort::topk(count, x.dims()[dim], k, largest, data, values.as_mut_slice(), indices.as_mut_slice());
        (values, indices, moved)
    }
    pair(x, dim, k, ordered!(x, T => run::<T>(x, k, dim, largest)))
}

fn pair(
    x: &Tensor,
    dim: usize,
    k: usize,
    (values, indices, moved): (CpuBuffer, CpuBuffer, Tensor),
) -> (Tensor, Tensor) {
    let values = back(values, &moved, k, moved.dtype(), dim);
    let values = if values.dtype() == x.dtype() { values } else { cast(&values, x.dtype()) };
    (values, back(indices, &moved, k, DType::I64, dim))
}

/// Running sum along `dim`: half types in f32, integers and bool as i64.
pub fn cumsum(x: &Tensor, dim: usize) -> Tensor {
    let dtype = x.dtype().accumulator();
    if dtype != x.dtype() {
        let sum = cumsum(&cast(x, dtype), dim);
        return if x.dtype().is_half() { cast(&sum, x.dtype()) } else { sum };
    }
    let x = x.contiguous();
    let (outer, inner) = (x.dims()[..dim].iter().product(), x.dims()[dim + 1..].iter().product());
    fn run<T: super::accumulate::Accumulate + Pod>(x: &Tensor, [outer, n, inner]: [usize; 3]) -> CpuBuffer {
        let mut out = CpuBuffer::scratch::<T>(x.numel());
        scan::cumsum::<T>(outer, n, inner, false, x.contiguous_slice(), out.as_mut_slice());
        out
    }
    let sizes = [outer, x.dims()[dim], inner];
    let buffer = match dtype {
        DType::F32 => run::<f32>(&x, sizes),
        DType::F64 => run::<f64>(&x, sizes),
        _ => run::<i64>(&x, sizes),
    };
    Tensor::from_cpu(buffer, x.shape(), dtype)
}
