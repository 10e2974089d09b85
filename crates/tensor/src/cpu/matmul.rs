//! Matrix products of tensors: dtypes and batches on top of [`gemm`](super::gemm).

use super::gemm::{GemmElement, MatRef, gemm};
use crate::storage::CpuBuffer;
use crate::{DType, Shape, Tensor};

/// `[…, M, K] × […, K, N]` with equal leading dimensions and one dtype.
pub fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
    match a.dtype() {
        DType::F32 => run::<f32>(a, b),
        DType::F64 => run::<f64>(a, b),
        d => panic!("{d}"),
    }
}

fn run<T: GemmElement + bytemuck::Pod>(a: &Tensor, b: &Tensor) -> Tensor {
    let r = a.rank();
    let (m, k, n) = (a.dims()[r - 2], a.dims()[r - 1], b.dims()[r - 1]);
    let lead = Shape::from(&a.dims()[..r - 2]);
    let shape: Shape = lead.iter().copied().chain([m, n]).collect();
    let mut out = CpuBuffer::scratch::<T>(shape.numel());
    let offset = |t: &Tensor, mut i: usize| {
        let mut at = t.layout().offset as isize;
        for d in (0..r - 2).rev() {
            at += (i % lead[d]) as isize * t.layout().strides[d];
            i /= lead[d];
        }
        at as usize
    };
    let mat = |t: &Tensor, i: usize| -> (usize, isize, isize) {
        (offset(t, i), t.layout().strides[r - 2], t.layout().strides[r - 1])
    };
    let c = out.as_mut_slice::<T>();
    for i in 0..lead.numel() {
        let (ao, ars, acs) = mat(a, i);
        let (bo, brs, bcs) = mat(b, i);
        let ma = MatRef { data: a.storage::<T>(), offset: ao, rs: ars, cs: acs };
        let mb = MatRef { data: b.storage::<T>(), offset: bo, rs: brs, cs: bcs };
        gemm(m, n, k, ma, mb, &mut c[i * m * n..(i + 1) * m * n], n, false, true);
    }
    Tensor::from_cpu(out, shape, a.dtype())
}
