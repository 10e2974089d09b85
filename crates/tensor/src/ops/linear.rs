//! The linear map of a layer.

use super::layer_norm::common_dtype;
use crate::shape::Shape;
use crate::{Tensor, ensure};

impl Tensor {
    /// `y = x Wᵀ + b`: `x [..., I]`, `weight [O, I]`, `bias [O]`, `y [..., O]`. dtypes are promoted; half types accumulate
    /// in f32.
    ///
    /// # Panics
    /// With a Shape error if the shapes are not those, with a DType error unless x is a float.
    #[track_caller]
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        const OP: &str = "linear";
        let dtype = common_dtype(OP, self, [Some(weight), bias]);
        ensure!(weight.rank() == 2, Shape, OP, "weight must be [outputs, inputs], got {}", weight.shape());
        let [o, i] = [weight.dims()[0], weight.dims()[1]];
        ensure!(
            self.rank() > 0 && self.dims()[self.rank() - 1] == i,
            Shape,
            OP,
            "the last dimension of the input {} is not weight's number of inputs: {} is [outputs, inputs = {i}]",
            self.shape(),
            weight.shape()
        );
        if let Some(b) = bias {
            ensure!(
                *b.shape() == [o],
                Shape,
                OP,
                "bias has shape {}, weight {} has {o} outputs",
                b.shape(),
                weight.shape()
            );
        }
        let lead = &self.dims()[..self.rank() - 1];
        let rows = lead.iter().product();
        let shape: Shape = lead.iter().copied().chain([o]).collect();
        let (x, w) = (self.to_dtype(dtype).reshape([rows, i]), weight.to_dtype(dtype).t());
        let y = match bias {
            None => x.matmul(&w),
            Some(b) => x.matmul_bias(&w, &b.to_dtype(dtype)),
        };
        y.reshape(shape)
    }
}
