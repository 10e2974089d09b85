//! Elements again and again, and elements moved round.

use crate::shape::axis;
use crate::{Shape, Tensor, ensure};

/// How to [`repeat`](Tensor::repeat) `shape`: the shapes to reshape to, then to expand to, then to reshape to.
///
/// # Panics
/// If there are fewer numbers than dimensions.
#[track_caller]
pub fn repeat_shapes(shape: &Shape, times: &[usize]) -> [Shape; 3] {
    ensure!(times.len() >= shape.rank(), Shape, "repeat", "{times:?} has fewer numbers than {shape} has dimensions");
    let lead = times.len() - shape.rank();
    let extent = |d: usize| if d < lead { 1 } else { shape[d - lead] };
    [
        (0..times.len()).flat_map(|d| [1, extent(d)]).collect(),
        (0..times.len()).flat_map(|d| [times[d], extent(d)]).collect(),
        (0..times.len()).map(|d| times[d] * extent(d)).collect(),
    ]
}

impl Tensor {
    /// The tensor `times[d]` times along each dimension d; with more numbers than dimensions, new leading ones.
    #[track_caller]
    pub fn repeat(&self, times: &[usize]) -> Tensor {
        let [split, expanded, joined] = repeat_shapes(self.shape(), times);
        self.reshape(split).expand(expanded).reshape(joined)
    }
    /// The entries of `dim` moved by `shift` places to higher indices; what falls off one end comes in at the other.
    #[track_caller]
    pub fn roll(&self, shift: isize, dim: isize) -> Tensor {
        let d = axis(dim, self.rank(), "roll");
        let n = self.dims()[d];
        let shift = if n == 0 { 0 } else { shift.rem_euclid(n as isize) as usize };
        if shift == 0 {
            return self.clone();
        }
        let d = d as isize;
        Tensor::cat(&[&self.narrow(d, n - shift, shift), &self.narrow(d, 0, n - shift)], d)
    }
}
