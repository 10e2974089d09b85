//! Extrema, bounds and magnitudes.

use super::arithmetic::each;
use super::cast::promote;
use super::unary::unary;
use crate::{Function, Saved, Var};
use ferrograd_tensor::Tensor;

unary! {
    /// `|x|`; the derivative is the sign of x, 0 at 0.
    Abs abs() input |x, g| g * x.tensor().sign();
    /// `min(max(x, low), high)`; the derivative is 1 for `low ≤ x ≤ high`, else 0.
    Clamp clamp(low: f64, high: f64) input |x, g| {
        let x = x.tensor();
        g.masked_fill(&x.lt_scalar(*low).logical_or(&x.gt_scalar(*high)), 0.0)
    };
}

/// The larger (or smaller) of two: the gradient goes to the one that was taken, half to each where they are equal.
struct Extremum {
    largest: bool,
}
impl Function for Extremum {
    fn name(&self) -> &'static str {
        if self.largest { "maximum" } else { "minimum" }
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        vec![if self.largest { x[0].maximum(&x[1]) } else { x[0].minimum(&x[1]) }]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let share = |g: &Var, mine: &Tensor, other: &Tensor| {
            let lost = if self.largest { mine.lt(other) } else { mine.gt(other) };
            Var::where_(&mine.eq(other), &(g * 0.5), g).masked_fill(&lost, 0.0)
        };
        let operands = |s: &Saved| (s.input(0).into_tensor(), s.input(1).into_tensor());
        each(
            saved,
            g,
            [
                &|s, g| {
                    let (a, b) = operands(s);
                    share(g, &a, &b)
                },
                &|s, g| {
                    let (a, b) = operands(s);
                    share(g, &b, &a)
                },
            ],
        )
    }
}

impl Var {
    /// The larger of the two; NaN wins. Where they are equal each gets half of the gradient.
    #[track_caller]
    pub fn maximum(&self, other: &Var) -> Var {
        let [a, b] = promote("maximum", [self, other]);
        Extremum { largest: true }.apply1(&[&a, &b])
    }
    /// The smaller of the two; NaN wins. Where they are equal each gets half of the gradient.
    #[track_caller]
    pub fn minimum(&self, other: &Var) -> Var {
        let [a, b] = promote("minimum", [self, other]);
        Extremum { largest: false }.apply1(&[&a, &b])
    }
}
