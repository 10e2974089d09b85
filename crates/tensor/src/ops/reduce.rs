//! Reductions over any set of dimensions.

use crate::backend::Reduce;
use crate::shape::{Axes, Dims};
use crate::{DType, Shape, Tensor, ensure};

impl Tensor {
    #[track_caller]
    fn reduce(&self, op: Reduce, dims: &Dims) -> Tensor {
        self.device.backend().reduce(op, self, dims)
    }
    /// Half types, integers and bool as f32; f32 and f64 as they are.
    pub(crate) fn wide(&self) -> Tensor {
        if self.dtype == DType::F64 { self.clone() } else { self.to_dtype(DType::F32) }
    }
    /// Removes the reduced dimensions.
    pub(crate) fn drop_dims(&self, dims: &[usize]) -> Tensor {
        let shape: Shape = (0..self.rank()).filter(|d| !dims.contains(d)).map(|d| self.dims()[d]).collect();
        self.reshape(shape)
    }
    #[track_caller]
    fn extremum(&self, name: &'static str, op: Reduce, dims: &Dims) -> Tensor {
        ensure!(
            dims.iter().all(|&d| self.dims()[d] > 0),
            Shape,
            name,
            "no elements, so none is the {}: {} over dimensions {:?}",
            if op == Reduce::Max { "largest" } else { "smallest" },
            self.shape(),
            &dims[..]
        );
        ensure!(self.dtype != DType::Bool, DType, name, "not defined for bool (use any or all)");
        self.reduce(op, dims)
    }
}

macro_rules! reductions {
    ($($(#[$doc:meta])* $name:ident $dims:ident $keep:ident: $f:expr;)*) => {$(
        impl Tensor {
            $(#[$doc])*
            ///
            /// Over all elements; the result is a scalar.
            #[track_caller]
            pub fn $name(&self) -> Tensor {
                self.$dims(..)
            }
            $(#[$doc])*
            ///
            /// Over the named dimensions, which disappear.
            #[track_caller]
            pub fn $dims(&self, dims: impl Axes) -> Tensor {
                let dims = dims.resolve(self.rank(), stringify!($name));
                let out: Tensor = $f(self, &dims);
                out.drop_dims(&dims)
            }
            $(#[$doc])*
            ///
            /// Over the named dimensions, which stay with extent 1.
            #[track_caller]
            pub fn $keep(&self, dims: impl Axes) -> Tensor {
                let dims = dims.resolve(self.rank(), stringify!($name));
                $f(self, &dims)
            }
        }
    )*};
}
reductions! {
    /// `Σ x`. Integers and bool sum to i64; half types accumulate in f32.
    sum sum_dims sum_keepdims: |x: &Tensor, d: &Dims| x.reduce(Reduce::Sum, d);
    /// `Π x`. Integers and bool multiply to i64.
    prod prod_dims prod_keepdims: |x: &Tensor, d: &Dims| x.reduce(Reduce::Prod, d);
    /// The largest; NaN wins.
    max max_dims max_keepdims: |x: &Tensor, d: &Dims| x.extremum("max", Reduce::Max, d);
    /// The smallest; NaN wins.
    min min_dims min_keepdims: |x: &Tensor, d: &Dims| x.extremum("min", Reduce::Min, d);
    /// Is any element true (not 0)?
    any any_dims any_keepdims: |x: &Tensor, d: &Dims| x.reduce(Reduce::Any, d);
    /// Are all elements true (not 0)?
    all all_dims all_keepdims: |x: &Tensor, d: &Dims| x.reduce(Reduce::All, d);
    /// `1/n Σ x`; integers become f32, and half types are summed in f32: no overflow on the way. NaN of nothing.
    mean mean_dims mean_keepdims: |x: &Tensor, d: &Dims| {
        let n: usize = d.iter().map(|&d| x.dims()[d]).product();
        let y = x.wide().reduce(Reduce::Sum, d).div_scalar(n as f64);
        if x.dtype.is_half() { y.to_dtype(x.dtype) } else { y }
    };
}

impl Tensor {
    /// The sum over the dimensions along which `shape` was broadcast to this shape: the adjoint of
    /// [`expand`](Tensor::expand).
    #[track_caller]
    pub fn sum_to(&self, shape: &Shape) -> Tensor {
        if self.shape() == shape {
            return self.clone();
        }
        let lead = self.rank() - shape.rank();
        let dims: Dims =
            (0..self.rank()).filter(|&d| d < lead || (shape[d - lead] == 1 && self.dims()[d] != 1)).collect();
        self.reduce(Reduce::Sum, &dims).reshape(shape)
    }
}
