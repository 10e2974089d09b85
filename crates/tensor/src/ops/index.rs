//! Reading and adding by index.

use crate::shape::{Dims, axis};
use crate::tensor::same_device;
use crate::{DType, Layout, Shape, Tensor, ensure, fail};

/// `index` as i64, all its values below `n`, or the device's promise that it will say so if one is not.
#[track_caller]
fn checked(op: &'static str, index: &Tensor, n: usize) -> Tensor {
    ensure!(index.dtype.is_int(), DType, op, "indices must be integers, got {}", index.dtype);
    let index = index.to_dtype(DType::I64);
    let backend = index.device.backend();
    if index.numel() == 0 || backend.checks_later(op, &index, n, None) {
        return index;
    }
    let (low, high) = backend.index_range(&index);
    if low < 0 || high >= n as i64 {
        let values = index.to_vec::<i64>();
        let at = values.iter().position(|&i| i < 0 || i >= n as i64).expect("one of them is out of range");
        let mut rest = at;
        let mut position: Dims = index.dims().iter().rev().map(|&n| (rest % n, rest /= n).0).collect();
        position.reverse();
        fail!(
            Index,
            op,
            "index {} lies outside 0..{n} (at {:?} of the indices {})",
            values[at],
            &position[..],
            index.shape()
        );
    }
    index
}

/// `index` reaches no further than `x` but along `dim`.
#[track_caller]
fn fits(op: &'static str, x: &Tensor, dim: usize, index: &Tensor) {
    ensure!(
        index.rank() == x.rank() && (0..x.rank()).all(|d| d == dim || index.dims()[d] <= x.dims()[d]),
        Shape,
        op,
        "indices {} do not fit {} along dimension {dim}: the ranks must agree, and no other extent may be larger",
        index.shape(),
        x.shape()
    );
}

/// The part of `x` that an index of smaller extents reaches.
fn reached(x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
    let shape = index.shape().with(dim, x.dims()[dim]);
    if x.shape() == &shape { x.clone() } else { x.with_layout(Layout { shape, ..x.layout.clone() }) }
}

#[track_caller]
fn same_dtype(op: &'static str, x: &Tensor, src: &Tensor) {
    ensure!(
        x.dtype == src.dtype && x.dtype != DType::Bool,
        DType,
        op,
        "needs one dtype, not bool, for what is added and what it is added to: {} and {}",
        src.dtype,
        x.dtype
    );
}

impl Tensor {
    /// `y[…, i, …] = x[…, index[…, i, …], …]`: along `dim`, the elements that `index` names. The result has index's
    /// shape, which has x's rank and reaches no further than x in the other dimensions.
    ///
    /// # Panics
    /// If the shapes do not fit, the index is not integer, or one lies outside of `0..n`, n the extent of `dim`.
    #[track_caller]
    pub fn gather(&self, dim: isize, index: &Tensor) -> Tensor {
        const OP: &str = "gather";
        same_device(OP, &[self, index]);
        let dim = axis(dim, self.rank(), OP);
        fits(OP, self, dim, index);
        let index = checked(OP, index, self.dims()[dim]);
        self.device.backend().gather(&reached(self, dim, &index), dim, &index)
    }
    /// `y = x; y[…, index[…, i, …], …] += src[…, i, …]`: the adjoint of [`gather`](Tensor::gather). `src` has index's
    /// shape and x's dtype. Sources of one element are added in their order; half types in f32.
    ///
    /// # Panics
    /// As [`gather`](Tensor::gather); if the dtypes differ or are bool.
    #[track_caller]
    pub fn scatter_add(&self, dim: isize, index: &Tensor, src: &Tensor) -> Tensor {
        const OP: &str = "scatter_add";
        same_device(OP, &[self, index, src]);
        same_dtype(OP, self, src);
        let dim = axis(dim, self.rank(), OP);
        fits(OP, self, dim, index);
        ensure!(
            index.shape() == src.shape(),
            Shape,
            OP,
            "indices {} and what is added {} must have one shape",
            index.shape(),
            src.shape()
        );
        let index = checked(OP, index, self.dims()[dim]);
        let part = reached(self, dim, &index);
        let backend = self.device.backend();
        let sum = backend.scatter_add(&part, dim, &index, src);
        if part.shape() == self.shape() {
            return sum;
        }
        let mut out = self.copy();
        let region = Layout { shape: part.shape().clone(), ..out.layout.clone() };
        backend.write(&mut out, &region, &sum);
        out
    }
    /// `y[…, j, …] = x[…, index[j], …]`: the slices along `dim` that `index`, of one dimension, names.
    ///
    /// # Panics
    /// If the index has not one dimension, is not integer, or one lies outside of `0..n`, n the extent of `dim`.
    #[track_caller]
    pub fn index_select(&self, dim: isize, index: &Tensor) -> Tensor {
        const OP: &str = "index_select";
        same_device(OP, &[self, index]);
        let dim = axis(dim, self.rank(), OP);
        ensure!(index.rank() == 1, Shape, OP, "indices must have 1 dimension, got {}", index.shape());
        let index = checked(OP, index, self.dims()[dim]);
        self.device.backend().index_select(self, dim, &index)
    }
    /// `y = x; y[…, index[j], …] += src[…, j, …]`: the adjoint of [`index_select`](Tensor::index_select). Sources of one
    /// slice are added in their order; half types in f32.
    ///
    /// # Panics
    /// As [`index_select`](Tensor::index_select); if `src` has not x's shape with index's length along `dim`; if the
    /// dtypes differ or are bool.
    #[track_caller]
    pub fn index_add(&self, dim: isize, index: &Tensor, src: &Tensor) -> Tensor {
        const OP: &str = "index_add";
        same_device(OP, &[self, index, src]);
        same_dtype(OP, self, src);
        let dim = axis(dim, self.rank(), OP);
        ensure!(index.rank() == 1, Shape, OP, "indices must have 1 dimension, got {}", index.shape());
        let expected = self.shape().with(dim, index.numel());
        ensure!(
            src.shape() == &expected,
            Shape,
            OP,
            "what is added to {} along dimension {dim} at {} indices must have shape {expected}, got {}",
            self.shape(),
            index.numel(),
            src.shape()
        );
        let index = checked(OP, index, self.dims()[dim]);
        self.device.backend().index_add(self, dim, &index, src)
    }
    /// The rows of this table `[V, …]` that `indices`, of any shape, name: `[indices…, …]`. No row of a lookup differs
    /// for `padding_idx`; it says whose gradient is dropped.
    ///
    /// # Panics
    /// If this is a scalar, the indices are not integer, or an index or `padding_idx` lies outside of `0..V`.
    #[track_caller]
    pub fn embedding(&self, indices: &Tensor, padding_idx: Option<usize>) -> Tensor {
        const OP: &str = "embedding";
        same_device(OP, &[self, indices]);
        ensure!(self.rank() > 0, Shape, OP, "the table needs at least 1 dimension, got {}", self.shape());
        let n = self.dims()[0];
        if let Some(i) = padding_idx {
            ensure!(i < n, Index, OP, "padding_idx {i} lies outside 0..{n}");
        }
        let index = checked(OP, indices, n);
        let shape: Shape = index.dims().iter().chain(&self.dims()[1..]).copied().collect();
        self.device.backend().index_select(self, 0, &index.flatten()).reshape(shape)
    }
    /// For these class indices `[…]`, i64 vectors `[…, classes]` that are 1 at the index and 0 elsewhere.
    ///
    /// # Panics
    /// If the indices are not integer, or one lies outside of `0..classes`.
    #[track_caller]
    pub fn one_hot(&self, classes: usize) -> Tensor {
        let index = checked("one_hot", self, classes);
        let all = Tensor::arange(0, classes as i64, 1).to_device(&self.device);
        index.unsqueeze(-1).eq(&all).to_dtype(DType::I64)
    }
}
