//! Reductions of a tensor over any dimensions.
//!
//! The reduced dimensions are moved to the end, which makes every reduction one of rows.

use super::elementwise::cast;
use super::lanes;
use super::level::level;
use super::math::Real;
use super::simd::simd_fn;
use crate::backend::Reduce;
use crate::dtype::Element;
use crate::shape::Dims;
use crate::storage::CpuBuffer;
use crate::{DType, Shape, Tensor, dispatch};
use rayon::prelude::*;

/// Reduces `dims` to extent 1.
pub fn reduce(op: Reduce, x: &Tensor, dims: &[usize]) -> Tensor {
    let shape: Shape = (0..x.rank()).map(|d| if dims.contains(&d) { 1 } else { x.dims()[d] }).collect();
    match (op, x.dtype()) {
        (Reduce::Any | Reduce::All, d) if d != DType::Bool => return reduce(op, &cast(x, DType::Bool), dims),
        (Reduce::Sum | Reduce::Prod, d) if d != d.accumulator() => {
            let out = reduce(op, &cast(x, d.accumulator()), dims);
            return if d.is_half() { cast(&out, d) } else { out };
        }
        (_, d) if d.is_half() => return cast(&reduce(op, &cast(x, DType::F32), dims), d),
        _ => {}
    }
    let order: Dims = (0..x.rank()).filter(|d| !dims.contains(d)).chain(dims.iter().copied()).collect();
    let rows = x.permute_dims(&order).contiguous();
    let n: usize = dims.iter().map(|&d| x.dims()[d]).product();
    let buffer = match x.dtype() {
        DType::F32 => by_rows::<f32>(&rows, shape.numel(), n, |row| row_real(level(), op, row)),
        DType::F64 => by_rows::<f64>(&rows, shape.numel(), n, |row| row_real(level(), op, row)),
        d => dispatch!(d, T => by_rows::<<T as Element>::Stored>(&rows, shape.numel(), n, |row| row_int::<T>(op, row))),
    };
    Tensor::from_cpu(buffer, shape, x.dtype())
}

fn by_rows<T: bytemuck::Pod + Send + Sync>(
    x: &Tensor,
    rows: usize,
    n: usize,
    f: impl Fn(&[T]) -> T + Sync,
) -> CpuBuffer {
    let data = x.contiguous_slice::<T>();
    let mut out = CpuBuffer::scratch::<T>(rows);
    let slots = out.as_mut_slice::<T>();
    if rows * n < 1 << 15 || rows == 1 {
        slots.iter_mut().enumerate().for_each(|(i, y)| *y = f(&data[i * n..(i + 1) * n]));
    } else {
        let min = ((1 << 13) / n.max(1)).max(1);
        slots.par_iter_mut().enumerate().with_min_len(min).for_each(|(i, y)| *y = f(&data[i * n..(i + 1) * n]));
    }
    out
}

simd_fn! {
    fn row_real[S]<T: Real>(op: Reduce, x: &[T]) -> T {
        match op {
            Reduce::Sum => lanes::sum(x),
            Reduce::Prod => x.iter().fold(T::ONE, |a, &b| a * b),
            Reduce::Max => lanes::max(x),
            Reduce::Min => lanes::min(x),
            Reduce::Any | Reduce::All => unreachable!("cast to bool before"),
        }
    }
}

fn row_int<T: Element>(op: Reduce, x: &[T::Stored]) -> T::Stored {
    let values = x.iter().map(|&v| T::load(v));
    let whole = values.clone().map(T::to_i64);
    let first = || x[0];
    match op {
        Reduce::Sum => T::from_i64(whole.fold(0, i64::wrapping_add)).store(),
        Reduce::Prod => T::from_i64(whole.fold(1, i64::wrapping_mul)).store(),
        Reduce::Max => x.iter().fold(first(), |a, &b| if b > a { b } else { a }),
        Reduce::Min => x.iter().fold(first(), |a, &b| if b < a { b } else { a }),
        Reduce::Any => T::from_i64(whole.fold(0, |a, b| a | (b != 0) as i64)).store(),
        Reduce::All => T::from_i64(whole.fold(1, |a, b| a & (b != 0) as i64)).store(),
    }
}
