//! Triangles of matrices.

use crate::{Device, Tensor, ensure};

/// `mask[i, j] = j − i > k`, the elements strictly above diagonal `k`, for an `m × n` matrix.
pub fn above_diagonal(m: usize, n: usize, k: isize, device: &Device) -> Tensor {
    let count = |n: usize| Tensor::arange(0i64, n as i64, 1).to_device(device);
    count(n).sub(&count(m).unsqueeze(1)).gt_scalar(k as f64)
}

/// The elements that [`Tensor::tril`] (or, with `upper`, [`Tensor::triu`]) sets to 0, as a mask of the last two
/// dimensions.
///
/// # Panics
/// If there are fewer than two dimensions.
#[track_caller]
pub fn dropped(op: &'static str, x: &Tensor, k: isize, upper: bool) -> Tensor {
    ensure!(x.rank() >= 2, Shape, op, "needs at least 2 dimensions, got {}", x.shape());
    let (m, n) = (x.dim(-2), x.dim(-1));
    match upper {
        false => above_diagonal(m, n, k, &x.device()),
        true => above_diagonal(m, n, k.saturating_sub(1), &x.device()).logical_not(),
    }
}

impl Tensor {
    /// The lower triangle of the last two dimensions: 0 above diagonal `k` (0 is the main one, positive lies above).
    #[track_caller]
    pub fn tril(&self, k: isize) -> Tensor {
        self.masked_fill(&dropped("tril", self, k, false), 0.0)
    }
    /// The upper triangle of the last two dimensions: 0 below diagonal `k`.
    #[track_caller]
    pub fn triu(&self, k: isize) -> Tensor {
        self.masked_fill(&dropped("triu", self, k, true), 0.0)
    }
}
