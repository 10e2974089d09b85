//! Linear maps of planes (average pooling, interpolation): derivative and map are each other's adjoints.

use crate::{Function, Saved, Var};
use ferrograd_tensor::Tensor;
use ferrograd_tensor::backend::PlaneMap;
use ferrograd_tensor::ops::pool::{apply_adjoint, apply_map};

/// `y = A x` for each plane, or with `adjoint` `y = Aᵀ x`.
pub(super) struct Mapped {
    op: &'static str,
    map: PlaneMap,
    adjoint: bool,
}

impl Mapped {
    /// `y = A x`.
    pub(super) fn forward(op: &'static str, map: PlaneMap) -> Mapped {
        Mapped { op, map, adjoint: false }
    }
}

impl Function for Mapped {
    fn name(&self) -> &'static str {
        self.op
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![if self.adjoint { apply_adjoint(&self.map, &x[0]) } else { apply_map(&self.map, &x[0]) }]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let other = Mapped { op: self.op, map: self.map, adjoint: !self.adjoint };
        vec![g[0].as_ref().map(|g| other.apply1(&[g]))]
    }
}
