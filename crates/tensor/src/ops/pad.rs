//! Padding at the ends of dimensions.

use crate::{Tensor, ensure};

/// What [`Tensor::pad`] puts around the elements. Shown for `a b c d` padded by 2 on both sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// One value: `v v a b c d v v`.
    Constant(f64),
    /// The elements mirrored at the first and last, which are not repeated: `c b a b c d c b`.
    Reflect,
    /// The first and last element: `a a a b c d d d`.
    Replicate,
    /// The elements from the other end: `c d a b c d a b`.
    Circular,
}

/// Checks the arguments of a padding and brings them into the form that both floors work through, dimension by
/// dimension: `(dimension, elements to cut off at both ends, elements to add at both ends)`.
///
/// # Panics
/// If there are more pairs than dimensions, a crop leaves less than nothing, or the mode cannot find as many elements.
#[track_caller]
pub fn plan(shape: &[usize], pads: &[(isize, isize)], mode: PadMode) -> Vec<(usize, [usize; 2], [usize; 2])> {
    const OP: &str = "pad";
    ensure!(
        pads.len() <= shape.len(),
        Shape,
        OP,
        "{} pairs for the {} dimensions of {shape:?}",
        pads.len(),
        shape.len()
    );
    let first = shape.len() - pads.len();
    let mut steps = Vec::new();
    for (d, &(before, after)) in (first..).zip(pads) {
        let cut = [before.min(0).unsigned_abs(), after.min(0).unsigned_abs()];
        let add = [before.max(0) as usize, after.max(0) as usize];
        ensure!(
            cut[0] + cut[1] <= shape[d],
            Shape,
            OP,
            "({before}, {after}) cuts more from dimension {d} of {shape:?} than its extent {}",
            shape[d]
        );
        let n = shape[d] - cut[0] - cut[1];
        let most = add[0].max(add[1]);
        let (possible, rule) = match mode {
            PadMode::Constant(_) => (true, ""),
            PadMode::Reflect => (most == 0 || most < n, "reflection reaches at most extent − 1"),
            PadMode::Replicate => (most == 0 || n > 0, "there is no element to repeat"),
            PadMode::Circular => (most <= n, "circular padding reaches at most the extent"),
        };
        ensure!(possible, Shape, OP, "({before}, {after}) for dimension {d} of {shape:?} (extent {n}): {rule}");
        if cut != [0, 0] || add != [0, 0] {
            steps.push((d, cut, add));
        }
    }
    steps
}

/// The pieces that [`PadMode`] puts before and after `x` along `d`, for tensors and for values with history alike.
#[macro_export]
#[doc(hidden)]
macro_rules! pad_pieces {
    ($x:expr, $d:expr, $add:expr, $mode:expr) => {{
        let (x, d, [before, after]) = (&$x, $d as isize, $add);
        let n = x.dims()[d as usize];
        let repeat = |at: usize, times: usize| {
            x.narrow(d, at.min(n.saturating_sub(1)), n.min(1)).expand(x.shape().with(d as usize, times))
        };
        match $mode {
            $crate::PadMode::Reflect => {
                (x.narrow(d, n.min(1), before).flip(d), x.narrow(d, n.saturating_sub(1 + after), after).flip(d))
            }
            $crate::PadMode::Replicate => (repeat(0, before), repeat(n.saturating_sub(1), after)),
            _ => (x.narrow(d, n - before, before), x.narrow(d, 0, after)),
        }
    }};
}

impl Tensor {
    /// Elements added before and after: `pads` are the pairs for the last `pads.len()` dimensions, in their order
    /// (unlike PyTorch's, which start from the last). Negative numbers cut off instead.
    ///
    /// ```
    /// use ferrograd_tensor::{PadMode, Tensor};
    /// let x = Tensor::new([1.0, 2.0, 3.0f32]);
    /// assert_eq!(x.pad(&[(2, 1)], PadMode::Reflect).to_vec::<f32>(), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If there are more pairs than dimensions, or the mode cannot find as many elements: reflection reaches at most
    /// extent − 1, circular padding at most the extent.
    #[track_caller]
    pub fn pad(&self, pads: &[(isize, isize)], mode: PadMode) -> Tensor {
        let steps = plan(self.dims(), pads, mode);
        if steps.is_empty() {
            return self.clone();
        }
        let mut x = self.clone();
        for &(d, [cut_before, cut_after], _) in &steps {
            let left = x.dims()[d] - cut_before - cut_after;
            x = x.narrow(d as isize, cut_before, left);
        }
        if let PadMode::Constant(value) = mode {
            let mut shape = x.shape().clone();
            steps.iter().for_each(|&(d, _, add)| shape = shape.with(d, shape[d] + add[0] + add[1]));
            let y = Tensor::full_on(shape, value, x.dtype, &x.device);
            return y.into_replaced(
                |y| steps.iter().fold(y.clone(), |y, &(d, _, add)| y.narrow(d as isize, add[0], x.dims()[d])),
                &x,
            );
        }
        for &(d, _, add) in &steps {
            let (before, after) = pad_pieces!(x, d, add, mode);
            x = Tensor::cat(&[&before, &x, &after], d as isize);
        }
        x
    }
}
