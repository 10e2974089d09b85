//! Products, with the right gradient where factors are 0.

use super::sum::dropped;
use crate::{Function, Saved, Var, enable_grad};
use ferrograd_tensor::{Axes, Shape, Tensor};

/// `y = Π x` over `dims`, which stay with extent 1.
struct Prod(Vec<usize>);

impl Prod {
    /// Halves multiplied with each other until one number is left: `∂y/∂xᵢ = Π_{j≠i} xⱼ` comes out without a division, so
    /// it is right where factors are 0, and so are all further derivatives.
    fn tree(&self, x: &Var) -> Var {
        let kept: Vec<usize> = (0..x.rank()).filter(|d| !self.0.contains(d)).collect();
        let order: Vec<usize> = kept.iter().chain(&self.0).copied().collect();
        let rows: usize = kept.iter().map(|&d| x.dims()[d]).product();
        let mut n: usize = self.0.iter().map(|&d| x.dims()[d]).product();
        let shape: Shape = x.dims().iter().enumerate().map(|(d, &n)| if self.0.contains(&d) { 1 } else { n }).collect();
        let device = x.device();
        let part = |x: &Var, start: usize, len: usize| {
            x.index_select(1, &Tensor::arange(start as i64, (start + len) as i64, 1).to_device(&device))
        };
        let mut y = x.permute_dims(&order).reshape([rows, n]);
        let mut odd: Option<Var> = None;
        while n > 1 {
            if n % 2 == 1 {
                let last = part(&y, n - 1, 1);
                odd = Some(odd.map_or(last.clone(), |o| o * &last));
            }
            n /= 2;
            y = part(&y, 0, n) * part(&y, n, n);
        }
        let y = odd.map_or(y.clone(), |o| y * o);
        y.reshape(shape)
    }
}

impl Function for Prod {
    fn name(&self) -> &'static str {
        "prod"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        vec![x[0].prod_keepdims(&self.0[..])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None] };
        if saved.input_shape(0).numel() == 0 {
            return vec![Some(Var::constant(saved.input(0).tensor().zeros_like()))];
        }
        let x = Var::leaf(saved.input(0).into_tensor());
        let y = enable_grad(|| self.tree(&x));
        vec![y.backward_from(g.tensor()).remove(&x).map(Var::constant)]
    }
    fn composed(&self, x: &[Var]) -> Option<Vec<Var>> {
        (x[0].numel() > 0).then(|| vec![self.tree(&x[0])])
    }
}

impl Var {
    /// `Π x` over all elements.
    #[track_caller]
    pub fn prod(&self) -> Var {
        self.prod_dims(..)
    }
    /// `Π x` over the named dimensions, which disappear. The gradient is right where factors are 0.
    #[track_caller]
    pub fn prod_dims(&self, dims: impl Axes) -> Var {
        let dims = dims.resolve(self.rank(), "prod");
        dropped(self.prod_keepdims(&dims[..]), &dims)
    }
    /// `Π x` over the named dimensions, which stay with extent 1.
    #[track_caller]
    pub fn prod_keepdims(&self, dims: impl Axes) -> Var {
        let dims = dims.resolve(self.rank(), "prod");
        Prod(dims.to_vec()).apply1(&[&self.raised()])
    }
}
