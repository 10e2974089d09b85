//! Running sums: the adjoint of a sum over what came before is the sum over what comes after.

use crate::{Function, Saved, Var};
use ferrograd_tensor::{Tensor, shape::axis};

/// `y_i = Σ_{j ≤ i} x_j`, or with `reverse` `Σ_{j ≥ i}`; each is the other's adjoint.
struct Cumsum {
    dim: usize,
    reverse: bool,
}
impl Function for Cumsum {
    fn name(&self) -> &'static str {
        "cumsum"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        let dim = self.dim as isize;
        vec![match self.reverse {
            false => x[0].cumsum(dim),
            true => x[0].flip(dim).cumsum(dim).flip(dim),
        }]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let adjoint = Cumsum { dim: self.dim, reverse: !self.reverse };
        vec![g[0].as_ref().map(|g| adjoint.apply1(&[g]))]
    }
}

impl Var {
    /// `y[…, i, …] = Σ_{j ≤ i} x[…, j, …]` along `dim`, see [`Tensor::cumsum`].
    #[track_caller]
    pub fn cumsum(&self, dim: isize) -> Var {
        let dim = axis(dim, self.rank(), "cumsum");
        Cumsum { dim, reverse: false }.apply1(&[&self.raised()])
    }
}
