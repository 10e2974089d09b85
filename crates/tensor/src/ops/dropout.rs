//! Dropout as a function of its random stream.

use crate::backend::Distribution;
use crate::random::RngState;
use crate::{DType, Tensor, ensure};

impl Tensor {
    /// Each element is 0 with probability `p`, else divided by `1 − p`, so that the expectation stays (Srivastava et
    /// al. 2014, "inverted"). Which ones is decided by the stream `state` alone: the same state gives the same mask,
    /// so a derivative need not store it.
    ///
    /// # Panics
    /// If `p` is not in [0, 1] or the tensor is not a float.
    #[track_caller]
    pub fn dropout_with(&self, p: f64, state: RngState) -> Tensor {
        const OP: &str = "dropout";
        ensure!((0.0..=1.0).contains(&p), Value, OP, "probability {p} is not in [0, 1]");
        ensure!(self.dtype.is_float(), DType, OP, "only for floats, got {}", self.dtype);
        if p == 0.0 {
            return self.clone();
        }
        let backend = self.device.backend();
        if let Some(y) = backend.dropout(self, p, state.seed, state.offset) {
            return y;
        }
        let keep = 1.0 - p;
        let mask =
            backend.random(Distribution::Bernoulli { p: keep }, self.shape(), DType::Bool, state.seed, state.offset);
        mask.where_(&self.mul_scalar(1.0 / keep), &self.full_like(0.0))
    }
}
