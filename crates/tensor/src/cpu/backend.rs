//! The CPU as a [`Backend`].

use super::{elementwise, level, matmul, optimizer, reduction, strided};
use crate::backend::{Backend, Binary, Compare, Reduce, Unary};
use crate::dtype::Element;
use crate::ops::optimizer::OptimizerStep;
use crate::storage::{Buffer, CpuBuffer};
use crate::{DType, Layout, Shape, Tensor, dispatch};
use std::sync::Arc;

/// The CPU backend. It has no state of its own: threads are rayon's, memory is the pool's.
pub struct CpuBackend;

impl Backend for CpuBackend {
    fn id(&self) -> (&'static str, usize) {
        ("cpu", 0)
    }
    fn description(&self) -> String {
        format!("CPU, {} threads, {:?}", rayon::current_num_threads(), level::level())
    }

    fn upload(&self, bytes: &[u8]) -> Arc<dyn Buffer> {
        Arc::new(CpuBuffer::from_slice(bytes))
    }
    fn download(&self, buffer: &dyn Buffer) -> Vec<u8> {
        buffer.as_any().downcast_ref::<CpuBuffer>().expect("a CPU buffer").as_slice::<u8>().to_vec()
    }

    fn full(&self, shape: &Shape, dtype: DType, value: f64) -> Tensor {
        let n = shape.numel();
        let buffer = dispatch!(dtype, T => {
            let stored = T::from_f64(value).store();
            if value.to_bits() == 0 {
                CpuBuffer::zeroed::<<T as Element>::Stored>(n)
            } else {
                strided::fill_chunks(n, |_, out: &mut [<T as Element>::Stored]| out.fill(stored))
            }
        });
        Tensor::from_cpu(buffer, shape, dtype)
    }
    fn copy(&self, x: &Tensor) -> Tensor {
        elementwise::copy(x)
    }
    fn write(&self, dst: &mut Tensor, region: &Layout, src: &Tensor) {
        let src = src.contiguous();
        let buffer = Arc::get_mut(&mut dst.buffer).expect("write: the destination is not shared");
        let buffer = buffer.as_any_mut().downcast_mut::<CpuBuffer>().expect("a CPU buffer");
        match src.dtype().size() {
            8 => strided::scatter(buffer.as_mut_slice::<u64>(), region, src.contiguous_slice()),
            4 => strided::scatter(buffer.as_mut_slice::<u32>(), region, src.contiguous_slice()),
            2 => strided::scatter(buffer.as_mut_slice::<u16>(), region, src.contiguous_slice()),
            _ => strided::scatter(buffer.as_mut_slice::<u8>(), region, src.contiguous_slice()),
        }
    }
    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor {
        elementwise::cast(x, dtype)
    }

    fn unary(&self, op: Unary, x: &Tensor) -> Tensor {
        elementwise::unary(op, x)
    }
    fn binary(&self, op: Binary, a: &Tensor, b: &Tensor) -> Tensor {
        elementwise::binary(op, a, b)
    }
    fn binary_assign(&self, op: Binary, dst: &mut Tensor, src: &Tensor) {
        elementwise::binary_assign(op, dst, src)
    }
    fn compare(&self, op: Compare, a: &Tensor, b: &Tensor) -> Tensor {
        elementwise::compare(op, a, b)
    }
    fn select(&self, condition: &Tensor, a: &Tensor, b: &Tensor) -> Tensor {
        elementwise::select(condition, a, b)
    }

    fn reduce(&self, op: Reduce, x: &Tensor, dims: &[usize]) -> Tensor {
        reduction::reduce(op, x, dims)
    }
    fn matmul(&self, a: &Tensor, b: &Tensor) -> Tensor {
        matmul::matmul(a, b)
    }

    fn optimizer_step(&self, step: &OptimizerStep, p: &mut Tensor, g: &Tensor, state: &mut [Tensor]) -> bool {
        optimizer::step(step, p, g, state)
    }
}
