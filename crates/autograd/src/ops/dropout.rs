//! Dropout.

use crate::{Function, Saved, Var};
use ferrograd_tensor::random::{RngState, reserve};
use ferrograd_tensor::{Tensor, ensure};

/// Linear in x, with a mask that the random stream `state` decides: so it is its own derivative, and the mask is made
/// again rather than stored.
#[derive(Clone, Copy)]
struct Dropout {
    p: f64,
    state: RngState,
}
impl Function for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].dropout_with(self.p, self.state)]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| self.apply1(&[g]))]
    }
}

impl Var {
    /// Each element is 0 with probability `p`, else divided by `1 − p`. Srivastava et al. 2014. Always active: layers
    /// call it in training only. Takes one stream of the generator unless `p` is 0.
    ///
    /// # Panics
    /// If `p` is not in [0, 1] or the value is not a float.
    #[track_caller]
    pub fn dropout(&self, p: f64) -> Var {
        ensure!((0.0..=1.0).contains(&p), Value, "dropout", "probability {p} is not in [0, 1]");
        if p == 0.0 {
            return self.clone();
        }
        Dropout { p, state: reserve(1) }.apply1(&[self])
    }
}
