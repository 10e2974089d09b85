//! Random tensors of any strides, and how far two tensors are apart.

use ferrograd_tensor::random::with_seed;
use ferrograd_tensor::{DType, Device, Shape, Tensor};

/// Uniform in [−1, 1), of any strides: contiguous, permuted, flipped or a section of something larger, as `seed` says.
pub fn values(shape: impl Into<Shape>, dtype: DType, seed: u64) -> Tensor {
    let shape: Shape = shape.into();
    let x = with_seed(seed, || Tensor::uniform_on(&shape, -1.0, 1.0, dtype, &Device::default()));
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
