//! Other shapes of the same elements.

use crate::{Function, Saved, Var};
use ferrograd_tensor::{Shape, Tensor, shape::axis};

/// The same elements under another shape; the gradient under the old one.
struct Reshape(Shape);
impl Function for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].reshape(&self.0)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| g.reshape(saved.input_shape(0)))]
    }
}

/// The dimensions in another order; the gradient in the inverse order.
struct Permute(Vec<usize>);
impl Function for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].permute_dims(&self.0)]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let mut inverse = vec![0; self.0.len()];
        self.0.iter().enumerate().for_each(|(i, &d)| inverse[d] = i);
        vec![g[0].as_ref().map(|g| g.permute_dims(&inverse))]
    }
}

impl Var {
    /// The same elements in row-major order under another shape; one extent may be
    /// [`INFER`](ferrograd_tensor::INFER).
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Var {
        let shape = self.shape().infer(shape);
        if shape == *self.shape() {
            return self.clone();
        }
        Reshape(shape).apply1(&[self])
    }
    /// The dimensions in another order: dimension `i` of the result is dimension `order[i]` of this.
    #[track_caller]
    pub fn permute<const N: usize>(&self, order: [isize; N]) -> Var {
        let order: Vec<usize> = order.iter().map(|&d| axis(d, self.rank(), "permute")).collect();
        self.permute_dims(&order)
    }
    /// [`permute`](Var::permute) by a slice.
    #[track_caller]
    pub fn permute_dims(&self, order: &[usize]) -> Var {
        Permute(order.to_vec()).apply1(&[self])
    }
    /// Two dimensions exchanged.
    #[track_caller]
    pub fn transpose(&self, a: isize, b: isize) -> Var {
        let (a, b) = (axis(a, self.rank(), "transpose"), axis(b, self.rank(), "transpose"));
        let mut order: Vec<usize> = (0..self.rank()).collect();
        order.swap(a, b);
        self.permute_dims(&order)
    }
    /// The last two dimensions exchanged.
    #[track_caller]
    pub fn t(&self) -> Var {
        self.transpose(-2, -1)
    }
    /// All elements in one dimension.
    #[track_caller]
    pub fn flatten(&self) -> Var {
        self.reshape(self.numel())
    }
    /// Dimensions `start..=end` joined into one.
    #[track_caller]
    pub fn flatten_dims(&self, start: isize, end: isize) -> Var {
        self.reshape(self.shape().flatten(start, end))
    }
    /// Dimension `dim` taken apart into `sizes`, one of which may be [`INFER`](ferrograd_tensor::INFER).
    #[track_caller]
    pub fn unflatten(&self, dim: isize, sizes: &[usize]) -> Var {
        self.reshape(self.tensor().unflatten(dim, sizes).shape())
    }
    /// Without dimension `dim`, which must have extent 1.
    #[track_caller]
    pub fn squeeze(&self, dim: isize) -> Var {
        self.reshape(self.tensor().squeeze(dim).shape())
    }
    /// With a dimension of extent 1 put in at `dim` (−1 appends).
    #[track_caller]
    pub fn unsqueeze(&self, dim: isize) -> Var {
        self.reshape(self.tensor().unsqueeze(dim).shape())
    }
}
