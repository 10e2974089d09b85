//! Pooling. The average is linear: its derivative is its adjoint, whose derivative is the average. The maximum's
//! derivative scatters the gradient to where the maxima are; this is linear too, and its derivative gathers from there.

use super::plane_map::Mapped;
use crate::{Function, Saved, Var};
use ferrograd_tensor::ops::pool::{
    adaptive_avg_pool2d_map, adaptive_max_pool, avg_pool2d_map, max_pool, plane_gather, plane_scatter,
};
use ferrograd_tensor::{Pool1dOptions, Pool2dOptions, Tensor, ensure};

/// Which maximum.
enum Maximum {
    Windows(Pool2dOptions),
    Bins([usize; 2]),
}

/// `y[…, i, j] = max` over a window or bin of the plane.
struct MaxPool {
    op: &'static str,
    over: Maximum,
}
impl Function for MaxPool {
    fn name(&self) -> &'static str {
        self.op
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let (y, index) = match &self.over {
            Maximum::Windows(options) => max_pool(self.op, &x[0], options),
            Maximum::Bins(size) => adaptive_max_pool(self.op, &x[0], *size),
        };
        saved.save(index);
        vec![y]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let index = saved.tensor(0).clone();
        let &[_, _, h, w] = &saved.input_shape(0)[..] else { unreachable!("forward checked the rank") };
        vec![g[0].as_ref().map(|g| PlaneScatter { index, h, w }.apply1(&[g]))]
    }
}

/// `dx[…, index[…, i, j]] += dy[…, i, j]` within each plane; the adjoint of [`PlaneGather`].
struct PlaneScatter {
    index: Tensor,
    h: usize,
    w: usize,
}
impl Function for PlaneScatter {
    fn name(&self) -> &'static str {
        "plane_scatter"
    }
    fn forward(&self, dy: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![plane_scatter(&dy[0], &self.index, self.h, self.w)]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| PlaneGather(self.index.clone()).apply1(&[g]))]
    }
}

/// `y[…, i, j] = x[…, index[…, i, j]]` within each plane; the adjoint of [`PlaneScatter`].
struct PlaneGather(Tensor);
impl Function for PlaneGather {
    fn name(&self) -> &'static str {
        "plane_gather"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![plane_gather(&x[0], &self.0)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let index = self.0.clone();
        let &[_, _, h, w] = &saved.input_shape(0)[..] else { unreachable!("the input of a pooling has 4 dimensions") };
        vec![g[0].as_ref().map(|g| PlaneScatter { index, h, w }.apply1(&[g]))]
    }
}

/// `f` of images of height 1, for `x [N, C, L]`.
#[track_caller]
pub(super) fn as_image(op: &'static str, x: &Var, f: impl FnOnce(&Var) -> Var) -> Var {
    ensure!(x.rank() == 3, Shape, op, "the input must be [N, C, L], got {}", x.shape());
    let [n, c, l] = x.dims_of(op);
    let y = f(&x.reshape([n, c, 1, l]));
    y.reshape([n, c, y.dim(-1)])
}

impl Var {
    /// The maximum over windows of `[N, C, H, W]`, see [`Tensor::max_pool2d`]. The gradient goes to the first of equals.
    #[track_caller]
    pub fn max_pool2d(&self, options: &Pool2dOptions) -> Var {
        MaxPool { op: "max_pool2d", over: Maximum::Windows(*options) }.apply1(&[self])
    }
    /// The maximum over windows of `[N, C, L]`, see [`Tensor::max_pool1d`].
    #[track_caller]
    pub fn max_pool1d(&self, options: &Pool1dOptions) -> Var {
        const OP: &str = "max_pool1d";
        let over = Maximum::Windows(options.two_dimensional());
        as_image(OP, self, |x| MaxPool { op: OP, over }.apply1(&[x]))
    }
    /// The mean over windows of `[N, C, H, W]`, see [`Tensor::avg_pool2d`].
    #[track_caller]
    pub fn avg_pool2d(&self, options: &Pool2dOptions) -> Var {
        const OP: &str = "avg_pool2d";
        Mapped::forward(OP, avg_pool2d_map(OP, self.tensor(), options)).apply1(&[self])
    }
    /// The mean over windows of `[N, C, L]`, see [`Tensor::avg_pool1d`].
    #[track_caller]
    pub fn avg_pool1d(&self, options: &Pool1dOptions) -> Var {
        const OP: &str = "avg_pool1d";
        let options = options.two_dimensional();
        as_image(OP, self, |x| Mapped::forward(OP, avg_pool2d_map(OP, x.tensor(), &options)).apply1(&[x]))
    }
    /// The mean over `size` bins of `[N, C, H, W]`, see [`Tensor::adaptive_avg_pool2d`].
    #[track_caller]
    pub fn adaptive_avg_pool2d(&self, size: [usize; 2]) -> Var {
        const OP: &str = "adaptive_avg_pool2d";
        Mapped::forward(OP, adaptive_avg_pool2d_map(OP, self.tensor(), size)).apply1(&[self])
    }
    /// The mean over `size` bins of `[N, C, L]`, see [`Tensor::adaptive_avg_pool1d`].
    #[track_caller]
    pub fn adaptive_avg_pool1d(&self, size: usize) -> Var {
        const OP: &str = "adaptive_avg_pool1d";
        as_image(OP, self, |x| Mapped::forward(OP, adaptive_avg_pool2d_map(OP, x.tensor(), [1, size])).apply1(&[x]))
    }
    /// The maximum over `size` bins of `[N, C, H, W]`, see [`Tensor::adaptive_max_pool2d`].
    #[track_caller]
    pub fn adaptive_max_pool2d(&self, size: [usize; 2]) -> Var {
        MaxPool { op: "adaptive_max_pool2d", over: Maximum::Bins(size) }.apply1(&[self])
    }
    /// The maximum over `size` bins of `[N, C, L]`, see [`Tensor::adaptive_max_pool1d`].
    #[track_caller]
    pub fn adaptive_max_pool1d(&self, size: usize) -> Var {
        const OP: &str = "adaptive_max_pool1d";
        as_image(OP, self, |x| MaxPool { op: OP, over: Maximum::Bins([1, size]) }.apply1(&[x]))
    }
}
