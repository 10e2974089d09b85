//! A backend without any fused kernel: the CPU's required methods and nothing else. What runs here runs composed.
//! Also the random tensors of any strides that the tests of fused ops share.
#![allow(dead_code)] // not every test that includes this file uses all of it

use ferrograd_tensor::backend::{Backend, Binary, Compare, Distribution, Reduce, Unary};
use ferrograd_tensor::random::with_seed;
use ferrograd_tensor::storage::Buffer;
use ferrograd_tensor::{DType, Device, Layout, Shape, Tensor};
use std::sync::Arc;

struct Plain;
static PLAIN: Plain = Plain;

/// The device of [`Plain`].
pub fn plain() -> Device {
    Device::from_backend(&PLAIN)
}

fn on(device: Device, x: &Tensor) -> Tensor {
    Tensor::from_buffer(x.buffer().clone(), x.layout().clone(), x.dtype(), device)
}
fn cpu(x: &Tensor) -> Tensor {
    on(Device::CPU, x)
}
fn here(x: Tensor) -> Tensor {
    on(plain(), &x)
}

impl Backend for Plain {
    fn id(&self) -> (&'static str, usize) {
        ("plain", 0)
    }
    fn description(&self) -> String {
        "the CPU without fused kernels".into()
    }
    fn upload(&self, bytes: &[u8]) -> Arc<dyn Buffer> {
        Device::CPU.backend().upload(bytes)
    }
    fn download(&self, buffer: &dyn Buffer) -> Vec<u8> {
        Device::CPU.backend().download(buffer)
    }
    fn full(&self, shape: &Shape, dtype: DType, value: f64) -> Tensor {
        here(Device::CPU.backend().full(shape, dtype, value))
    }
    fn copy(&self, x: &Tensor) -> Tensor {
        here(Device::CPU.backend().copy(&cpu(x)))
    }
    fn write(&self, dst: &mut Tensor, region: &Layout, src: &Tensor) {
        // The buffer must stay unshared.
        let taken = std::mem::replace(dst, Tensor::zeros(0));
        let (buffer, layout, dtype) = (taken.buffer().clone(), taken.layout().clone(), taken.dtype());
        drop(taken);
        let mut own = Tensor::from_buffer(buffer, layout, dtype, Device::CPU);
        Device::CPU.backend().write(&mut own, region, &cpu(src));
        *dst = here(own);
    }
    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor {
        here(Device::CPU.backend().cast(&cpu(x), dtype))
    }
    fn unary(&self, op: Unary, x: &Tensor) -> Tensor {
        here(Device::CPU.backend().unary(op, &cpu(x)))
    }
    fn binary(&self, op: Binary, a: &Tensor, b: &Tensor) -> Tensor {
        here(Device::CPU.backend().binary(op, &cpu(a), &cpu(b)))
    }
    fn compare(&self, op: Compare, a: &Tensor, b: &Tensor) -> Tensor {
        here(Device::CPU.backend().compare(op, &cpu(a), &cpu(b)))
    }
    fn select(&self, condition: &Tensor, a: &Tensor, b: &Tensor) -> Tensor {
        here(Device::CPU.backend().select(&cpu(condition), &cpu(a), &cpu(b)))
    }
    fn reduce(&self, op: Reduce, x: &Tensor, dims: &[usize]) -> Tensor {
        here(Device::CPU.backend().reduce(op, &cpu(x), dims))
    }
    fn arg_reduce(&self, largest: bool, x: &Tensor, dim: usize) -> Tensor {
        here(Device::CPU.backend().arg_reduce(largest, &cpu(x), dim))
    }
    fn cumsum(&self, x: &Tensor, dim: usize) -> Tensor {
        here(Device::CPU.backend().cumsum(&cpu(x), dim))
    }
    fn sort(&self, x: &Tensor, dim: usize, descending: bool) -> (Tensor, Tensor) {
        let (values, index) = Device::CPU.backend().sort(&cpu(x), dim, descending);
        (here(values), here(index))
    }
    fn matmul(&self, a: &Tensor, b: &Tensor) -> Tensor {
        here(Device::CPU.backend().matmul(&cpu(a), &cpu(b)))
    }
    fn gather(&self, x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
        here(Device::CPU.backend().gather(&cpu(x), dim, &cpu(index)))
    }
    fn scatter_add(&self, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
        here(Device::CPU.backend().scatter_add(&cpu(x), dim, &cpu(index), &cpu(src)))
    }
    fn index_select(&self, x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
        here(Device::CPU.backend().index_select(&cpu(x), dim, &cpu(index)))
    }
    fn index_add(&self, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
        here(Device::CPU.backend().index_add(&cpu(x), dim, &cpu(index), &cpu(src)))
    }
    fn index_range(&self, index: &Tensor) -> (i64, i64) {
        Device::CPU.backend().index_range(&cpu(index))
    }
    fn random(&self, distribution: Distribution, shape: &Shape, dtype: DType, seed: u64, offset: u64) -> Tensor {
        here(Device::CPU.backend().random(distribution, shape, dtype, seed, offset))
    }
}

/// Uniform in [−1, 1), of any strides: contiguous, permuted, flipped or a section of something larger, as `seed` says.
pub fn values(shape: impl Into<Shape>, dtype: DType, seed: u64) -> Tensor {
    let shape: Shape = shape.into();
    let x = with_seed(seed, || Tensor::uniform_on(&shape, -1.0, 1.0, dtype, &Device::CPU));
    match (seed % 5, shape.rank()) {
        (_, 0) | (0, _) => x,
        (1, r) => {
            let order: Vec<usize> = (0..r).rev().collect();
            x.permute_dims(&order).copy().permute_dims(&order)
        }
        (2, _) => x.flip(..).copy().flip(..),
        (3, r) => {
            let n = shape[r - 1];
            Tensor::cat(&[&x, &x, &x], -1).narrow(-1, n, n)
        }
        (_, r) => {
            let mut order: Vec<usize> = (0..r).collect();
            order.swap(0, r - 1);
            x.permute_dims(&order).copy().permute_dims(&order).flip(0).copy().flip(0)
        }
    }
}

/// The largest absolute difference, NaN if there is one.
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    assert_eq!(a.dtype(), b.dtype());
    let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
    let difference = |(x, y): (&f64, &f64)| if x == y { 0.0 } else { (x - y).abs() };
    a.iter().zip(&b).map(difference).fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}
