//! Cross-entropy: softmax, logarithm and choice of the class in one pass, and its gradient `softmax − target` in another.

use crate::{CrossEntropy, Function, Reduction, Saved, Var};
use ferrograd_tensor::Tensor;

/// The loss of logits by classes. The targets are part of the operation: they have no gradient.
struct CrossEntropyOp {
    targets: Tensor,
    options: CrossEntropy,
}
impl Function for CrossEntropyOp {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        let (loss, lse, total) = x[0].cross_entropy_with_stats(&self.targets, &self.options);
        saved.save_input(0);
        saved.save(lse);
        saved.save(total);
        vec![loss]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None] };
        let x = saved.input(0);
        if saved.create_graph() {
            return vec![Some(self.gradient(&x, g))];
        }
        let (lse, total) = (saved.tensor(0), saved.tensor(1));
        let dx = x.tensor().cross_entropy_backward(&self.targets, &self.options, lse, total, g.tensor());
        vec![Some(Var::constant(dx))]
    }
}

impl CrossEntropyOp {
    /// The gradient in `Var` operations, to be differentiated again: `scale·(softmax(x)·Σ_c q_c − q)`. Unlike the derivative
    /// of `−Σ q ln p`, it is finite where a logit is −∞.
    fn gradient(&self, x: &Var, g: &Var) -> Var {
        let dtype = x.dtype().accumulator();
        let q = self.options.distribution(&self.targets, x.dim(1), dtype);
        let hits = CrossEntropy { label_smoothing: 0.0, ..self.options.clone() };
        let g = g.to_dtype(dtype);
        let scale = match self.options.reduction {
            Reduction::Mean => {
                let total = hits.distribution(&self.targets, x.dim(1), dtype).sum();
                // Where no target counts there is no gradient either; the loss itself is NaN.
                let total = total.masked_fill(&total.eq_scalar(0.0), 1.0);
                g / Var::constant(total)
            }
            Reduction::Sum => g,
            Reduction::None => g.unsqueeze(1),
        };
        let p = x.to_dtype(dtype).softmax(1);
        let mass = Var::constant(q.sum_keepdims(1));
        (scale * (p * mass - Var::constant(q))).to_dtype(x.dtype())
    }
}

impl Var {
    /// `−ln softmax(logits)[target]` with class weights, label smoothing and ignored targets: logits `[N, V]` or
    /// `[N, V, d1, …]`, targets i64 `[N]` or `[N, d1, …]`; see [`Tensor::cross_entropy`]. f32 under autocast.
    #[track_caller]
    pub fn cross_entropy(&self, targets: &Tensor, options: &CrossEntropy) -> Var {
        CrossEntropyOp { targets: targets.clone(), options: options.clone() }.apply1(&[&self.raised()])
    }
    /// Cross-entropy with class probabilities of the logits' shape, which have no gradient; see
    /// [`Tensor::cross_entropy_probs`]. f32 under autocast.
    #[track_caller]
    pub fn cross_entropy_probs(&self, targets: &Tensor, options: &CrossEntropy) -> Var {
        let x = self.raised();
        let q = options.probabilities("cross_entropy_probs", x.tensor(), targets);
        let loss = -(x.to_dtype(q.dtype()).log_softmax(1) * q).sum_dims(1);
        let loss = match options.reduction {
            Reduction::Mean => loss.mean(),
            Reduction::Sum => loss.sum(),
            Reduction::None => loss,
        };
        loss.to_dtype(x.dtype())
    }
}
