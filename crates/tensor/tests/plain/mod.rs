//! A device with the required methods only: what an operation does on a backend that lacks its fused kernel.

use ferrograd_tensor::backend::{Backend, Binary, Compare, Distribution, PlaneMap, Reduce, Unary};
use ferrograd_tensor::cpu::CpuBackend;
use ferrograd_tensor::ops::pool::{AdaptivePool2dGeometry, Pool2dGeometry};
use ferrograd_tensor::{DType, Device, Layout, Shape, Tensor, storage::Buffer};
use std::sync::Arc;

/// The CPU without its fused kernels.
pub struct Plain;

/// The device.
pub fn device() -> Device {
    Device::from_backend(&Plain)
}

/// The same tensor as the CPU sees it.
fn cpu(x: &Tensor) -> Tensor {
    Tensor::from_buffer(x.buffer().clone(), x.layout().clone(), x.dtype(), Device::CPU)
}
/// The CPU's tensor as this device's.
fn plain(x: Tensor) -> Tensor {
    Tensor::from_buffer(x.buffer().clone(), x.layout().clone(), x.dtype(), device())
}

impl Backend for Plain {
    fn id(&self) -> (&'static str, usize) {
        ("plain", 0)
    }
    fn description(&self) -> String {
        "the CPU without its fused kernels".into()
    }
    fn upload(&self, bytes: &[u8]) -> Arc<dyn Buffer> {
        CpuBackend.upload(bytes)
    }
    fn download(&self, buffer: &dyn Buffer) -> Vec<u8> {
        CpuBackend.download(buffer)
    }
    fn full(&self, shape: &Shape, dtype: DType, value: f64) -> Tensor {
        plain(CpuBackend.full(shape, dtype, value))
    }
    fn copy(&self, x: &Tensor) -> Tensor {
        plain(CpuBackend.copy(&cpu(x)))
    }
    fn write(&self, dst: &mut Tensor, region: &Layout, src: &Tensor) {
        // The destination must stay the only holder of its memory.
        let mut written = cpu(&std::mem::replace(dst, Tensor::zeros(())));
        CpuBackend.write(&mut written, region, &cpu(src));
        *dst = plain(written);
    }
    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor {
        plain(CpuBackend.cast(&cpu(x), dtype))
    }
    fn unary(&self, op: Unary, x: &Tensor) -> Tensor {
        plain(CpuBackend.unary(op, &cpu(x)))
    }
    fn binary(&self, op: Binary, a: &Tensor, b: &Tensor) -> Tensor {
        plain(CpuBackend.binary(op, &cpu(a), &cpu(b)))
    }
    fn compare(&self, op: Compare, a: &Tensor, b: &Tensor) -> Tensor {
        plain(CpuBackend.compare(op, &cpu(a), &cpu(b)))
    }
    fn select(&self, condition: &Tensor, a: &Tensor, b: &Tensor) -> Tensor {
        plain(CpuBackend.select(&cpu(condition), &cpu(a), &cpu(b)))
    }
    fn reduce(&self, op: Reduce, x: &Tensor, dims: &[usize]) -> Tensor {
        plain(CpuBackend.reduce(op, &cpu(x), dims))
    }
    fn matmul(&self, a: &Tensor, b: &Tensor) -> Tensor {
        plain(CpuBackend.matmul(&cpu(a), &cpu(b)))
    }
    fn arg_reduce(&self, largest: bool, x: &Tensor, dim: usize) -> Tensor {
        plain(CpuBackend.arg_reduce(largest, &cpu(x), dim))
    }
    fn cumsum(&self, x: &Tensor, dim: usize) -> Tensor {
        plain(CpuBackend.cumsum(&cpu(x), dim))
    }
    fn sort(&self, x: &Tensor, dim: usize, descending: bool) -> (Tensor, Tensor) {
        let (values, indices) = CpuBackend.sort(&cpu(x), dim, descending);
        (plain(values), plain(indices))
    }
    fn gather(&self, x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
        plain(CpuBackend.gather(&cpu(x), dim, &cpu(index)))
    }
    fn scatter_add(&self, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
        plain(CpuBackend.scatter_add(&cpu(x), dim, &cpu(index), &cpu(src)))
    }
    fn index_select(&self, x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
        plain(CpuBackend.index_select(&cpu(x), dim, &cpu(index)))
    }
    fn index_add(&self, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
        plain(CpuBackend.index_add(&cpu(x), dim, &cpu(index), &cpu(src)))
    }
    fn index_range(&self, index: &Tensor) -> (i64, i64) {
        CpuBackend.index_range(&cpu(index))
    }
    fn plane_map(&self, map: &PlaneMap, x: &Tensor) -> Tensor {
        plain(CpuBackend.plane_map(map, &cpu(x)))
    }
    fn plane_map_adjoint(&self, map: &PlaneMap, dy: &Tensor) -> Tensor {
        plain(CpuBackend.plane_map_adjoint(map, &cpu(dy)))
    }
    fn max_pool2d(&self, windows: &Pool2dGeometry, x: &Tensor) -> (Tensor, Tensor) {
        let (y, index) = CpuBackend.max_pool2d(windows, &cpu(x));
        (plain(y), plain(index))
    }
    fn adaptive_max_pool2d(&self, bins: &AdaptivePool2dGeometry, x: &Tensor) -> (Tensor, Tensor) {
        let (y, index) = CpuBackend.adaptive_max_pool2d(bins, &cpu(x));
        (plain(y), plain(index))
    }
    fn plane_gather(&self, x: &Tensor, index: &Tensor) -> Tensor {
        plain(CpuBackend.plane_gather(&cpu(x), &cpu(index)))
    }
    fn plane_scatter(&self, dy: &Tensor, index: &Tensor, h: usize, w: usize) -> Tensor {
        plain(CpuBackend.plane_scatter(&cpu(dy), &cpu(index), h, w))
    }
    fn random(&self, distribution: Distribution, shape: &Shape, dtype: DType, seed: u64, offset: u64) -> Tensor {
        plain(CpuBackend.random(distribution, shape, dtype, seed, offset))
    }
}
