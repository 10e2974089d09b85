//! Two linear maps with an activation between them, the feed-forward part of a Transformer: with `z = x W₁ᵀ + b₁`, `h = f(z)` and
//! `G = ∂L/∂y`
//!
//! ```text
//! ∂L/∂W₂ = Gᵀ h,     ∂L/∂b₂ = Σ_rows G,     D = ∂L/∂z = (G W₂) ⊙ f'(z),
//! ∂L/∂W₁ = Dᵀ x,     ∂L/∂b₁ = Σ_rows D,     ∂L/∂x = D W₁.
//! ```
//!
//! It is one operation so that f and f' need no pass over memory of their own where a device has kernels for it: both products apply
//! them to their sums.

use super::linear::{of_one_dtype, weight_grad};
use crate::{Function, Saved, Var};
use ferrograd_tensor::ops::linear::{Epilogue, activation_grad, forward};
use ferrograd_tensor::{Activation, Tensor};

/// `y = f(x W₁ᵀ + b₁) W₂ᵀ + b₂`; inputs x, W₁, W₂, then those of b₁ and b₂ that there are.
struct FeedForward {
    activation: Activation,
    biases: [bool; 2],
}

impl FeedForward {
    /// b₁ and b₂ among the inputs.
    fn biases<'a, T>(&self, inputs: &'a [T]) -> [Option<&'a T>; 2] {
        let mut rest = inputs[3..].iter();
        self.biases.map(|there| if there { rest.next() } else { None })
    }
}

impl Function for FeedForward {
    fn name(&self) -> &'static str {
        "feed_forward"
    }
    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        let [b1, b2] = self.biases(inputs);
        let epilogue = Epilogue { bias: b1, activation: self.activation, residual: None };
        let (h, z) = forward(&inputs[0], &inputs[1], &epilogue, saved.is_recording());
        let y = h.linear(&inputs[2], b2);
        if let Some(z) = z {
            saved.save(z);
            saved.save(h);
        }
        vec![y]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None; saved.num_inputs()] };
        let [x, w1, w2] = [0, 1, 2].map(|i| saved.input(i).into_tensor());
        let rows = |x: &Tensor| {
            let columns = x.dims()[x.rank() - 1];
            x.reshape([x.dims()[..x.rank() - 1].iter().product(), columns])
        };
        let [g, z, h] = [g.tensor(), saved.tensor(0), saved.tensor(1)].map(rows);
        let [first, second] = [self.biases[0].then_some(3), self.biases[1].then_some(3 + self.biases[0] as usize)];
        let needs = |i: Option<usize>| i.is_some_and(|i| saved.needs_grad(i));
        let d =
            (needs(Some(0)) || needs(Some(1)) || needs(first)).then(|| activation_grad(&g, &w2, self.activation, &z));
        let of_d = |wanted: bool, f: &dyn Fn(&Tensor) -> Tensor| d.as_ref().filter(|_| wanted).map(f);
        let mut all = vec![
            of_d(needs(Some(0)), &|d| d.matmul(&w1).reshape(x.shape())),
            of_d(needs(Some(1)), &|d| weight_grad(d, &rows(&x), &w1)),
            needs(Some(2)).then(|| weight_grad(&g, &h, &w2)),
        ];
        if self.biases[0] {
            all.push(of_d(needs(first), &|d| d.sum_dims(0)));
        }
        if self.biases[1] {
            all.push(needs(second).then(|| g.sum_dims(0)));
        }
        all.into_iter().map(|g| g.map(Var::constant)).collect()
    }
    fn composed(&self, inputs: &[Var]) -> Option<Vec<Var>> {
        let [b1, b2] = self.biases(inputs);
        let z = inputs[0].linear(&inputs[1], b1);
        Some(vec![z.activate(self.activation).linear(&inputs[2], b2)])
    }
}

impl Var {
    /// `y = f(x W₁ᵀ + b₁) W₂ᵀ + b₂`: `x [..., I]`, `w1 [H, I]`, `b1 [H]`, `w2 [O, H]`, `b2 [O]`, `y [..., O]`; the feed-forward part
    /// of a Transformer (Vaswani et al. 2017, §3.3). The same as two calls of [`linear`](Var::linear) with the activation f
    /// between them, but that a device may apply f and its derivative within the products. Computes in the autocast dtype.
    ///
    /// # Panics
    /// With a Shape error if the shapes are not those, with a DType error unless x is a float.
    #[track_caller]
    pub fn feed_forward(&self, [w1, w2]: [&Var; 2], [b1, b2]: [Option<&Var>; 2], activation: Activation) -> Var {
        let inputs = of_one_dtype([Some(self), Some(w1), Some(w2), b1, b2]);
        let op = FeedForward { activation, biases: [b1.is_some(), b2.is_some()] };
        op.apply1(&inputs.iter().collect::<Vec<_>>())
    }
}
