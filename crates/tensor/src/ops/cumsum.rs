//! Running sums.

use crate::Tensor;
use crate::shape::axis;

impl Tensor {
    /// `y[…, i, …] = Σ_{j ≤ i} x[…, j, …]` along dimension `dim`; same shape.
    ///
    /// Integers and bool sum to i64 and wrap on overflow; half types are summed in f32 or better and rounded once.
    ///
    /// # Panics
    /// If there is no dimension `dim`.
    #[track_caller]
    pub fn cumsum(&self, dim: isize) -> Tensor {
        let dim = axis(dim, self.rank(), "cumsum");
        self.device.backend().cumsum(self, dim)
    }
}
