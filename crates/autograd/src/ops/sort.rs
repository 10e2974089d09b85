//! Order along a dimension: the values' gradients go back to where the values came from; indices have none.

use crate::{Function, Saved, Var};
use ferrograd_tensor::{Tensor, shape::axis};

/// How elements along `dim` are picked.
enum Pick {
    Max,
    Min,
    Sort { descending: bool },
    TopK { k: usize, largest: bool },
}

/// `values = x.gather(dim, indices)` with indices that follow from x.
struct Ordered {
    pick: Pick,
    dim: usize,
}
impl Function for Ordered {
    fn name(&self) -> &'static str {
        match self.pick {
            Pick::Max => "max_with_index",
            Pick::Min => "min_with_index",
            Pick::Sort { .. } => "sort",
            Pick::TopK { .. } => "topk",
        }
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let (x, dim) = (&x[0], self.dim as isize);
        let (values, indices) = match self.pick {
            Pick::Max => x.max_with_index(dim),
            Pick::Min => x.min_with_index(dim),
            Pick::Sort { descending } => x.sort(dim, descending),
            Pick::TopK { k, largest } => x.topk(k, dim, largest),
        };
        saved.save(indices.clone());
        vec![values, indices]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None] };
        let dim = self.dim as isize;
        let (g, indices) = match self.pick {
            Pick::Max | Pick::Min => {
                let kept = saved.input_shape(0).with(self.dim, 1);
                (g.reshape(&kept), saved.tensor(0).unsqueeze(dim))
            }
            _ => (g.clone(), saved.tensor(0).clone()),
        };
        vec![Some(super::index::zeros(saved, &g).scatter_add(dim, &indices, &g))]
    }
}

impl Var {
    #[track_caller]
    fn ordered(&self, op: &'static str, pick: Pick, dim: isize) -> (Var, Tensor) {
        let dim = axis(dim, self.rank(), op);
        let mut outputs = Ordered { pick, dim }.apply(&[self]);
        let indices = outputs.pop().expect("two outputs").into_tensor();
        (outputs.pop().expect("two outputs"), indices)
    }
    /// The index (i64) of the largest element along `dim`, which disappears, see [`Tensor::argmax`].
    #[track_caller]
    pub fn argmax(&self, dim: isize) -> Tensor {
        self.tensor().argmax(dim)
    }
    /// The index (i64) of the smallest element along `dim`, which disappears, see [`Tensor::argmin`].
    #[track_caller]
    pub fn argmin(&self, dim: isize) -> Tensor {
        self.tensor().argmin(dim)
    }
    /// The largest element along `dim`, which disappears, and its index, the first of equals, which gets the gradient.
    #[track_caller]
    pub fn max_with_index(&self, dim: isize) -> (Var, Tensor) {
        self.ordered("max_with_index", Pick::Max, dim)
    }
    /// The smallest element along `dim`, which disappears, and its index, the first of equals, which gets the gradient.
    #[track_caller]
    pub fn min_with_index(&self, dim: isize) -> (Var, Tensor) {
        self.ordered("min_with_index", Pick::Min, dim)
    }
    /// The elements in order along `dim`, and where they were, see [`Tensor::sort`].
    #[track_caller]
    pub fn sort(&self, dim: isize, descending: bool) -> (Var, Tensor) {
        self.ordered("sort", Pick::Sort { descending }, dim)
    }
    /// The `k` largest (or smallest) elements along `dim`, best first, and where they were, see [`Tensor::topk`].
    #[track_caller]
    pub fn topk(&self, k: usize, dim: isize, largest: bool) -> (Var, Tensor) {
        self.ordered("topk", Pick::TopK { k, largest }, dim)
    }
}
