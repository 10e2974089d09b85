//! Order along a dimension: sort, top-k, and where the extrema are.

use crate::shape::axis;
use crate::{Tensor, ensure};

impl Tensor {
    #[track_caller]
    fn arg_reduce(&self, name: &'static str, largest: bool, dim: isize) -> Tensor {
        let d = axis(dim, self.rank(), name);
        ensure!(
            self.dims()[d] > 0,
            Shape,
            name,
            "no elements, so none is the {}: {} over dimension {d}",
            if largest { "largest" } else { "smallest" },
            self.shape()
        );
        self.device.backend().arg_reduce(largest, self, d)
    }
    /// The index (i64) of the largest element along `dim`, which disappears: the first of equals; the first NaN if there
    /// is one.
    ///
    /// # Panics
    /// If there is no dimension `dim`, or its extent is 0.
    #[track_caller]
    pub fn argmax(&self, dim: isize) -> Tensor {
        self.arg_reduce("argmax", true, dim).squeeze(dim)
    }
    /// The index (i64) of the smallest element along `dim`, which disappears: the first of equals; the first NaN if there
    /// is one.
    ///
    /// # Panics
    /// If there is no dimension `dim`, or its extent is 0.
    #[track_caller]
    pub fn argmin(&self, dim: isize) -> Tensor {
        self.arg_reduce("argmin", false, dim).squeeze(dim)
    }
    /// The largest element along `dim`, which disappears, and its index (i64): see [`argmax`](Tensor::argmax).
    #[track_caller]
    pub fn max_with_index(&self, dim: isize) -> (Tensor, Tensor) {
        let index = self.arg_reduce("max_with_index", true, dim);
        (self.gather(dim, &index).squeeze(dim), index.squeeze(dim))
    }
    /// The smallest element along `dim`, which disappears, and its index (i64): see [`argmin`](Tensor::argmin).
    #[track_caller]
    pub fn min_with_index(&self, dim: isize) -> (Tensor, Tensor) {
        let index = self.arg_reduce("min_with_index", false, dim);
        (self.gather(dim, &index).squeeze(dim), index.squeeze(dim))
    }
    /// The elements in order along `dim`, and where they were (i64): `values = x.gather(dim, indices)`.
    ///
    /// Stable: equal elements keep their order, in either direction. NaN is above every number: last in ascending order,
    /// first in descending.
    ///
    /// # Panics
    /// If there is no dimension `dim`.
    #[track_caller]
    pub fn sort(&self, dim: isize, descending: bool) -> (Tensor, Tensor) {
        let dim = axis(dim, self.rank(), "sort");
        self.device.backend().sort(self, dim, descending)
    }
    /// The `k` largest (or smallest) elements along `dim`, best first, and where they were (i64): the first `k` of
    /// [`sort`](Tensor::sort), without sorting the rest.
    ///
    /// # Panics
    /// If there is no dimension `dim`, or `k` exceeds its extent.
    #[track_caller]
    pub fn topk(&self, k: usize, dim: isize, largest: bool) -> (Tensor, Tensor) {
        let d = axis(dim, self.rank(), "topk");
        let n = self.dims()[d];
        ensure!(k <= n, Value, "topk", "k = {k} exceeds dimension {dim} of {} (extent {n})", self.shape());
        if let Some(pair) = self.device.backend().topk(self, k, d, largest) {
            return pair;
        }
        let (values, indices) = self.sort(dim, largest);
        (values.narrow(dim, 0, k), indices.narrow(dim, 0, k))
    }
}
