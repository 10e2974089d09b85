//! `y = x`: a new identity for a value.

use crate::{Function, Saved, Var};
use ferrograd_tensor::Tensor;

struct Identity;
impl Function for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].clone()]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].clone()]
    }
}

#[track_caller]
pub(crate) fn identity(x: &Var) -> Var {
    Identity.apply1(&[x])
}
