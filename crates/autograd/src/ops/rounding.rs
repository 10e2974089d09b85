//! Functions that are constant piece by piece: the derivative is 0.

use super::unary::unary;
use crate::{Function, Saved, Var};
use ferrograd_tensor::Tensor;

/// `y = 0`, whatever x is (NaN too): the derivative of a step function, and its own derivative.
struct Zero;
impl Function for Zero {
    fn name(&self) -> &'static str {
        "zero"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].zeros_like()]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(zero_like)]
    }
}

/// Zeros that still say what they depend on.
pub(super) fn zero_like(x: &Var) -> Var {
    Zero.apply1(&[x])
}

unary! {
    /// −1, 0 or 1; NaN stays NaN. The derivative is 0.
    Sign sign() nothing |_x, g| zero_like(g);
    /// The largest integer not above x. The derivative is 0.
    Floor floor() nothing |_x, g| zero_like(g);
    /// The smallest integer not below x. The derivative is 0.
    Ceil ceil() nothing |_x, g| zero_like(g);
    /// To the nearest integer, halves to even. The derivative is 0.
    Round round() nothing |_x, g| zero_like(g);
}
