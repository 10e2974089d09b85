//! The diagonal of matrices.

use crate::Var;
use ferrograd_tensor::{Shape, Tensor, ensure};

impl Var {
    /// The diagonal of the last two dimensions `[…, m, n]`: `[…, min(m, n)]`, see [`Tensor::diagonal`].
    ///
    /// Every `n + 1`-st element of the matrix as a vector: an index_select, whose gradient goes back to these elements.
    #[track_caller]
    pub fn diagonal(&self) -> Var {
        let r = self.rank();
        ensure!(r >= 2, Shape, "diagonal", "needs at least 2 dimensions, got {}", self.shape());
        let (m, n) = (self.dims()[r - 2], self.dims()[r - 1]);
        let shape: Shape = self.dims()[..r - 2].iter().copied().chain([m * n]).collect();
        let positions: Vec<i64> = (0..m.min(n)).map(|i| (i * (n + 1)) as i64).collect();
        let count = positions.len();
        self.reshape(shape).index_select(-1, &Tensor::from_vec(positions, count).to_device(&self.device()))
    }
}
