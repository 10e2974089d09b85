//! Rotary position embedding: its derivative is itself, with the opposite angles.

use crate::{Function, Saved, Var};
use ferrograd_tensor::{RotaryPairs, Tensor};

/// Pairs of features turned by the angles of `cos` and `sin`, or back by them.
#[derive(Clone)]
struct Rope {
    cos: Tensor,
    sin: Tensor,
    pairs: RotaryPairs,
    inverse: bool,
}
impl Function for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        let Rope { cos, sin, pairs, inverse } = self;
        vec![if *inverse { x[0].rope_backward(cos, sin, *pairs) } else { x[0].rope(cos, sin, *pairs) }]
    }
    // With a history of its own: derivatives of any order need no composed form.
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let back = Rope { inverse: !self.inverse, ..self.clone() };
        vec![g[0].as_ref().map(|g| back.apply1(&[g]))]
    }
}

impl Var {
    /// Rotary position embedding of `x` `[…, T, D]`: `a' = a cos θ − b sin θ`, `b' = b cos θ + a sin θ` for each pair of features
    /// `(a, b)`, by tables of cosines and sines that broadcast to `[…, T, P]`; see [`Tensor::rope`]. The tables are constants.
    /// dtype and shape are x's, under autocast too: half types compute in f32.
    #[track_caller]
    pub fn rope(&self, cos: &Tensor, sin: &Tensor, pairs: RotaryPairs) -> Var {
        Rope { cos: cos.clone(), sin: sin.clone(), pairs, inverse: false }.apply1(&[self])
    }
}
