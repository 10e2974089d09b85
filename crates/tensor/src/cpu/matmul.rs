//! Matrix products of tensors: dtypes, strides and batches on top of [`gemm`](super::gemm).

use super::gemm::{GemmElement, MatRef, gemm_batched, gemm_bias, gemm_wide};
use crate::dtype::Element;
use crate::storage::CpuBuffer;
use crate::{DType, Shape, Tensor};
use half::{bf16, f16};

/// `[…, M, K] × […, K, N]` with equal leading dimensions and one dtype, read where they lie whatever the strides.
pub fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
    match a.dtype() {
        DType::F32 => run::<f32>(a, b),
        DType::F64 => run::<f64>(a, b),
        DType::F16 => run::<f16>(a, b),
        DType::BF16 => run::<bf16>(a, b),
        DType::I64 => run::<i64>(a, b),
        DType::I32 => run::<i32>(a, b),
        DType::I8 => run::<i8>(a, b),
        DType::U8 => run::<u8>(a, b),
        DType::Bool => unreachable!("the op floor lets no bool through"),
    }
}

fn run<T: GemmElement>(a: &Tensor, b: &Tensor) -> Tensor {
    let r = a.rank();
    let (m, k, n) = (a.dims()[r - 2], a.dims()[r - 1], b.dims()[r - 1]);
    let shape: Shape = a.dims()[..r - 1].iter().copied().chain([n]).collect();
    let batch = a.dims()[..r - 2].iter().product();
    let mut out = CpuBuffer::scratch::<T>(shape.numel());
    let (a_at, b_at) = (|i| offset(a, i), |i| offset(b, i));
    gemm_batched(batch, m, n, k, matrix(a), &a_at, matrix(b), &b_at, out.as_mut_slice::<T>(), false, true);
    Tensor::from_cpu(out, shape, a.dtype())
}

/// `[M, K] × [K, N] + bias [N]`, of one float dtype.
pub fn matmul_bias(a: &Tensor, b: &Tensor, bias: &Tensor) -> Tensor {
    match a.dtype() {
        DType::F64 => run_bias::<f64>(a, b, bias),
        DType::F32 => run_bias::<f32>(a, b, bias),
        DType::F16 => run_bias::<f16>(a, b, bias),
        _ => run_bias::<bf16>(a, b, bias),
    }
}

fn run_bias<T: GemmElement<Acc: Element<Stored = T::Acc>>>(a: &Tensor, b: &Tensor, bias: &Tensor) -> Tensor {
    let ([m, k], n) = (a.dims_of("matmul"), b.dim(1));
    let bias = bias.to_dtype(T::Acc::DTYPE).contiguous();
    let mut out = CpuBuffer::scratch::<T>(m * n);
    gemm_bias(m, n, k, matrix(a), matrix(b), bias.contiguous_slice::<T::Acc>(), out.as_mut_slice::<T>());
    Tensor::from_cpu(out, [m, n], a.dtype())
}

/// `[M, K] × [K, N]` of i8, in i32.
pub fn int_mm(a: &Tensor, b: &Tensor) -> Tensor {
    let ([m, k], n) = (a.dims_of("int_mm"), b.dim(1));
    let mut out = CpuBuffer::scratch::<i32>(m * n);
    gemm_wide::<i8>(m, n, k, matrix(a), matrix(b), out.as_mut_slice::<i32>(), n, false, true);
    Tensor::from_cpu(out, [m, n], DType::I32)
}

/// The last two dimensions.
fn matrix<T: GemmElement>(x: &Tensor) -> MatRef<'_, T> {
    let strides = &x.layout().strides;
    let r = x.rank();
    MatRef { data: x.storage(), offset: x.layout().offset, rs: strides[r - 2], cs: strides[r - 1] }
}

/// Where matrix `i` of the batch begins in the storage.
fn offset(x: &Tensor, mut i: usize) -> usize {
    let layout = x.layout();
    let mut at = layout.offset as isize;
    for d in (0..x.rank() - 2).rev() {
        at += (i % layout.shape[d]) as isize * layout.strides[d];
        i /= layout.shape[d];
    }
    at as usize
}
