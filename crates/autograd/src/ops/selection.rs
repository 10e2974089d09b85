//! Choices by a mask, which has no derivative itself.

use super::arithmetic::each;
use super::cast::promote;
use crate::{Function, Saved, Var};
use ferrograd_tensor::{Tensor, ops::triangle};

/// `condition ? a : b`: the gradient goes to what was taken.
struct Where(Tensor);
impl Function for Where {
    fn name(&self) -> &'static str {
        "where"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![self.0.where_(&x[0], &x[1])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        each(saved, g, [&|_, g| g.masked_fill(&self.0.logical_not(), 0.0), &|_, g| g.masked_fill(&self.0, 0.0)])
    }
}

/// `mask ? value : x`: no gradient where the value stands.
struct MaskedFill {
    mask: Tensor,
    value: f64,
}
impl Function for MaskedFill {
    fn name(&self) -> &'static str {
        "masked_fill"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].masked_fill(&self.mask, self.value)]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| g.masked_fill(&self.mask, 0.0))]
    }
}

impl Var {
    /// `a` where the bool tensor `condition` is true, else `b`. All three broadcast; dtypes are promoted.
    #[track_caller]
    pub fn where_(condition: &Tensor, a: &Var, b: &Var) -> Var {
        let [a, b] = promote("where", [a, b]);
        Where(condition.clone()).apply1(&[&a, &b])
    }
    /// `value` where `mask` (bool, broadcast to this shape) is true, else this.
    #[track_caller]
    pub fn masked_fill(&self, mask: &Tensor, value: f64) -> Var {
        MaskedFill { mask: mask.clone(), value }.apply1(&[self])
    }
    /// The lower triangle of the last two dimensions: 0 above diagonal `k` (0 is the main one, positive lies above).
    #[track_caller]
    pub fn tril(&self, k: isize) -> Var {
        self.masked_fill(&triangle::dropped("tril", self.tensor(), k, false), 0.0)
    }
    /// The upper triangle of the last two dimensions: 0 below diagonal `k`.
    #[track_caller]
    pub fn triu(&self, k: isize) -> Var {
        self.masked_fill(&triangle::dropped("triu", self.tensor(), k, true), 0.0)
    }
}
