//! Joining tensors along a dimension, an existing one or a new one.

use crate::shape::axis;
use crate::tensor::same_device;
use crate::{DType, Tensor, ensure, fail};

impl Tensor {
    /// The tensors one after another along `dim`; in all other dimensions they must be equal. dtypes are promoted.
    ///
    /// ```
    /// use ferrograd_tensor::Tensor;
    /// let (a, b) = (Tensor::new([[1.0, 2.0f32]]), Tensor::new([[3.0, 4.0f32], [5.0, 6.0]]));
    /// assert_eq!(*Tensor::cat(&[&a, &b], 0).shape(), [3, 2]);
    /// ```
    ///
    /// # Panics
    /// If there are none, or their ranks, other extents or devices differ.
    #[track_caller]
    pub fn cat(tensors: &[&Tensor], dim: isize) -> Tensor {
        const OP: &str = "cat";
        let Some(dtype) = tensors.iter().map(|x| x.dtype()).reduce(DType::promote) else {
            fail!(Value, OP, "needs at least one tensor")
        };
        same_device(OP, tensors);
        let first = tensors[0];
        let d = axis(dim, first.rank(), OP);
        for (i, x) in tensors.iter().enumerate().skip(1) {
            ensure!(
                x.rank() == first.rank() && (0..x.rank()).all(|e| e == d || x.dims()[e] == first.dims()[e]),
                Shape,
                OP,
                "shapes may differ in dimension {dim} only: tensor 0 is {}, tensor {i} is {}",
                first.shape(),
                x.shape()
            );
        }
        let xs: Vec<Tensor> = tensors.iter().map(|x| x.to_dtype(dtype)).collect();
        if let [x] = &xs[..] {
            return x.clone();
        }
        let backend = first.device.backend();
        if let Some(y) = backend.cat(&xs, d) {
            return y;
        }
        let shape = first.shape().with(d, xs.iter().map(|x| x.dims()[d]).sum());
        let mut y = backend.full(&shape, dtype, 0.0);
        let mut start = 0;
        for x in &xs {
            let region = y.narrow(d as isize, start, x.dims()[d]).layout;
            backend.write(&mut y, &region, x);
            start += x.dims()[d];
        }
        y
    }
    /// The tensors, all of one shape, along a new dimension `dim` (−1 appends). dtypes are promoted.
    #[track_caller]
    pub fn stack(tensors: &[&Tensor], dim: isize) -> Tensor {
        const OP: &str = "stack";
        ensure!(!tensors.is_empty(), Value, OP, "needs at least one tensor");
        for (i, x) in tensors.iter().enumerate() {
            ensure!(
                x.shape() == tensors[0].shape(),
                Shape,
                OP,
                "shapes must be equal: tensor 0 is {}, tensor {i} is {}",
                tensors[0].shape(),
                x.shape()
            );
        }
        let d = axis(dim, tensors[0].rank() + 1, OP) as isize;
        let xs: Vec<Tensor> = tensors.iter().map(|x| x.unsqueeze(d)).collect();
        Tensor::cat(&xs.iter().collect::<Vec<_>>(), d)
    }
}
