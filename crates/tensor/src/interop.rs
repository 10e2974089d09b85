//! To and from other containers: nested vectors, and `ndarray` (feature `ndarray`).

use crate::Tensor;
use crate::dtype::Element;

impl Tensor {
    /// The rows of a matrix.
    ///
    /// # Panics
    /// If the tensor has not 2 dimensions, or `T` is not its dtype (cast with [`to_dtype`](Tensor::to_dtype) first).
    #[track_caller]
    pub fn to_vec2<T: Element>(&self) -> Vec<Vec<T>> {
        let [rows, columns] = self.dims_of("to_vec2");
        nest(self.to_vec(), rows, columns)
    }
    /// The rows of each matrix of a tensor with 3 dimensions.
    ///
    /// # Panics
    /// If the tensor has not 3 dimensions, or `T` is not its dtype (cast with [`to_dtype`](Tensor::to_dtype) first).
    #[track_caller]
    pub fn to_vec3<T: Element>(&self) -> Vec<Vec<Vec<T>>> {
        let [matrices, rows, columns] = self.dims_of("to_vec3");
        nest(nest(self.to_vec(), matrices * rows, columns), matrices, rows)
    }
}

/// `n` vectors of `len` values each.
fn nest<T>(values: Vec<T>, n: usize, len: usize) -> Vec<Vec<T>> {
    let mut values = values.into_iter();
    (0..n).map(|_| values.by_ref().take(len).collect()).collect()
}

#[cfg(feature = "ndarray")]
mod with_ndarray {
    use crate::dtype::Element;
    use crate::{Error, Tensor};
    use ndarray::{ArrayBase, ArrayD, Data, Dimension, IxDyn};

    /// The same elements on the CPU, whatever the array's strides.
    impl<T: Element, S: Data<Elem = T>, D: Dimension> From<&ArrayBase<S, D>> for Tensor {
        fn from(array: &ArrayBase<S, D>) -> Tensor {
            Tensor::from_vec(array.iter().copied().collect(), array.shape())
        }
    }
    /// The same elements on the CPU, whatever the array's strides.
    impl<T: Element, S: Data<Elem = T>, D: Dimension> From<ArrayBase<S, D>> for Tensor {
        fn from(array: ArrayBase<S, D>) -> Tensor {
            Tensor::from(&array)
        }
    }
    /// The same elements in row-major order; an [`Error::DType`] if `T` is not the tensor's dtype.
    impl<T: Element> TryFrom<&Tensor> for ArrayD<T> {
        type Error = Error;
        fn try_from(tensor: &Tensor) -> Result<ArrayD<T>, Error> {
            if tensor.dtype() != T::DTYPE {
                let message = format!("asked for {} of a {} tensor (cast with to_dtype)", T::DTYPE, tensor.dtype());
                return Err(Error::DType { op: "ndarray", message });
            }
            let shape = IxDyn(tensor.dims());
            Ok(ArrayD::from_shape_vec(shape, tensor.to_vec()).expect("a tensor has as many elements as its shape says"))
        }
    }
}
