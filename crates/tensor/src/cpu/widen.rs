//! Half types in kernels that compute in f32.

use crate::{DType, Tensor};

/// `f` of float tensors of one dtype, with half types widened to f32 and the result narrowed again.
pub(crate) fn widened<const N: usize>(xs: [&Tensor; N], f: impl FnOnce([&Tensor; N]) -> Tensor) -> Tensor {
    let dtype = xs[0].dtype();
    if !dtype.is_half() {
        return f(xs);
    }
    let wide = xs.map(|x| x.to_dtype(DType::F32));
    f(wide.each_ref()).to_dtype(dtype)
}
