//! Rotary position embedding.

use super::softmax::widened;
use crate::tensor::same_device;
use crate::{Tensor, ensure};

/// Which two features of a head make a pair that [`Tensor::rope`] turns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum RotaryPairs {
    /// `(x_i, x_{i+R/2})`, the first half with the second: GPT-NeoX, Llama and most since.
    #[default]
    Halves,
    /// `(x_{2i}, x_{2i+1})`, neighbours: the paper, GPT-J.
    Interleaved,
}

impl RotaryPairs {
    /// Views of the first and of the second features of the `pairs` pairs `[…, P]` of `x` `[…, D]`.
    pub fn of(self, x: &Tensor, pairs: usize) -> [Tensor; 2] {
        match self {
            RotaryPairs::Halves => [0, pairs].map(|start| x.narrow(-1, start, pairs)),
            RotaryPairs::Interleaved => [0, 1].map(|start| x.narrow(-1, 0, 2 * pairs).slice_dim(-1, start, None, 2)),
        }
    }
    /// The inverse: features `[…, 2P]` of their firsts and seconds.
    fn joined(self, first: &Tensor, second: &Tensor) -> Tensor {
        match self {
            RotaryPairs::Halves => Tensor::cat(&[first, second], -1),
            RotaryPairs::Interleaved => Tensor::stack(&[first, second], -1).flatten_dims(-2, -1),
        }
    }
}

impl Tensor {
    /// Rotary position embedding: each pair of features `(a, b)` of `x` `[…, T, D]` is turned by an angle θ that grows with its
    /// position, `a' = a cos θ − b sin θ`, `b' = b cos θ + a sin θ`, so that products of queries and keys depend on the
    /// distance between their positions alone.
    ///
    /// `cos` and `sin` hold those of the first `R = 2P ≤ D` features and broadcast to `[…, T, P]`: `[T, P]` for `x`
    /// `[B, H, T, D]`, `[B, 1, T, P]` where each sequence has positions of its own. Features from R on stay as they are. Shape
    /// and dtype are x's; half types compute in f32, in which the tables are best kept.
    ///
    /// J. Su et al. 2021, arXiv:2104.09864.
    ///
    /// # Panics
    /// With a DType error unless all are floats, with a Shape error if the tables do not broadcast.
    ///
    /// ```
    /// use ferrograd_tensor::{Tensor, ops::rope::RotaryPairs};
    /// let (cos, sin) = (Tensor::new([[0.0f32]]), Tensor::new([[1.0f32]])); // a right angle
    /// let y = Tensor::new([[3.0f32, 4.0]]).rope(&cos, &sin, RotaryPairs::Halves);
    /// assert_eq!(y.to_vec::<f32>(), [-4.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn rope(&self, cos: &Tensor, sin: &Tensor, pairs: RotaryPairs) -> Tensor {
        turned("rope", self, cos, sin, pairs, false)
    }
    /// The gradient `∂L/∂x` of [`rope`](Tensor::rope), from this `g = ∂L/∂y`: turned by the opposite angles.
    #[track_caller]
    pub fn rope_backward(&self, cos: &Tensor, sin: &Tensor, pairs: RotaryPairs) -> Tensor {
        turned("rope_backward", self, cos, sin, pairs, true)
    }
}

#[track_caller]
fn turned(op: &'static str, x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: RotaryPairs, inverse: bool) -> Tensor {
    same_device(op, &[x, cos, sin]);
    let floats = [x, cos, sin].iter().all(|t| t.dtype().is_float());
    let dtypes = || format!("{}, {} and {}", x.dtype(), cos.dtype(), sin.dtype());
    ensure!(floats, DType, op, "needs float tensors, got {} (cast with to_dtype)", dtypes());
    ensure!(
        x.rank() >= 2 && cos.rank() >= 1 && cos.shape() == sin.shape() && 2 * cos.dim(-1) <= x.dim(-1),
        Shape,
        op,
        "x {} is not […, T, D] with cos {} and sin {} of one shape […, T, P], 2P ≤ D",
        x.shape(),
        cos.shape(),
        sin.shape()
    );
    let p = cos.dim(-1);
    let angles = x.shape().with(x.rank() - 1, p);
    let fits = cos.rank() <= x.rank()
        && cos.dims().iter().rev().zip(angles.dims().iter().rev()).all(|(&table, &n)| table == n || table == 1);
    ensure!(fits, Shape, op, "cos and sin {} do not broadcast to {angles}, the pairs of x {}", cos.shape(), x.shape());
    if p == 0 {
        return x.clone();
    }
    let [cos, sin] = [cos, sin].map(|table| table.to_dtype(x.dtype().accumulator()).expand(&angles));
    let fused = x.device().backend().rope(x, &cos, &sin, pairs, inverse);
    fused.unwrap_or_else(|| composed(x, &cos, &sin, pairs, inverse))
}

/// `x` `[…, T, D]` turned by the angles of `cos` and `sin` `[…, T, P]`, or back by them, in elementwise operations: what a
/// backend without the fused kernel runs.
pub fn composed(x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: RotaryPairs, inverse: bool) -> Tensor {
    let (p, d) = (cos.dim(-1), x.dim(-1));
    let [a, b] = pairs.of(&widened(x), p);
    let sin = if inverse { -sin } else { sin.clone() };
    let turned = pairs.joined(&(&a * cos - &b * &sin), &(&b * cos + &a * &sin)).to_dtype(x.dtype());
    if 2 * p == d { turned } else { Tensor::cat(&[&turned, &x.narrow(-1, 2 * p, d - 2 * p)], -1) }
}
