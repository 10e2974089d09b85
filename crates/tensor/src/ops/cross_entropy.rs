//! Cross-entropy of logits with class indices or class probabilities.

use super::softmax::widened;
use crate::shape::Shape;
use crate::tensor::same_device;
use crate::{DType, Tensor, ensure, fail};

/// What becomes of the losses of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean; for class indices the weighted one, `Σ loss / Σ w[target]`.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// Nothing: a loss per position.
    None,
}

/// The options of [`Tensor::cross_entropy`].
#[derive(Clone)]
pub struct CrossEntropy {
    /// A weight per class, `[V]`.
    pub weight: Option<Tensor>,
    /// Targets with this value count for nothing, neither in the loss nor in the mean. −100 by default.
    pub ignore_index: Option<i64>,
    /// ε in [0, 1]: the part of the target distribution that is spread evenly over all classes (C. Szegedy et al. 2016,
    /// arXiv:1512.00567, §7). 0 by default.
    pub label_smoothing: f64,
    /// Mean by default.
    pub reduction: Reduction,
}

/// What modifies the loss of each row in [`Backend::cross_entropy`](crate::backend::Backend::cross_entropy).
#[derive(Clone, Copy)]
pub struct CrossEntropyRows<'a> {
    /// A weight per class, `[V]`.
    pub weight: Option<&'a Tensor>,
    /// Rows with this target count for nothing.
    pub ignore_index: Option<i64>,
    /// The part of the target distribution that is spread evenly over all classes.
    pub label_smoothing: f64,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        CrossEntropy { weight: None, ignore_index: Some(-100), label_smoothing: 0.0, reduction: Reduction::Mean }
    }
}

impl CrossEntropy {
    fn rows(&self) -> CrossEntropyRows<'_> {
        CrossEntropyRows {
            weight: self.weight.as_ref(),
            ignore_index: self.ignore_index,
            label_smoothing: self.label_smoothing,
        }
    }
    #[track_caller]
    fn check(&self, op: &'static str, x: &Tensor) {
        ensure!(x.dtype().is_float(), DType, op, "needs float logits, got {} (cast with to_dtype)", x.dtype());
        ensure!(x.rank() >= 2, Shape, op, "logits need at least 2 dimensions [N, V, …], got {}", x.shape());
        let eps = self.label_smoothing;
        ensure!((0.0..=1.0).contains(&eps), Value, op, "label_smoothing {eps} is outside of [0, 1]");
        if let Some(w) = &self.weight {
            same_device(op, &[x, w]);
            let v = x.dims()[1];
            ensure!(w.dtype().is_float(), DType, op, "weight must be a float tensor, got {}", w.dtype());
            ensure!(
                *w.shape() == [v],
                Shape,
                op,
                "weight has shape {}, logits {} have {v} classes",
                w.shape(),
                x.shape()
            );
        }
    }
    #[track_caller]
    fn check_targets(&self, op: &'static str, x: &Tensor, targets: &Tensor) {
        self.check(op, x);
        same_device(op, &[x, targets]);
        ensure!(
            targets.dtype() == DType::I64,
            DType,
            op,
            "targets are classes and must be i64, got {} (for probabilities: cross_entropy_probs)",
            targets.dtype()
        );
        let positions = x.shape().without(1);
        ensure!(
            *targets.shape() == positions,
            Shape,
            op,
            "logits {} need targets {positions}, got {}",
            x.shape(),
            targets.shape()
        );
        let v = x.dims()[1];
        let outside = |t: i64| !(0..v as i64).contains(&t) && self.ignore_index != Some(t);
        let backend = targets.device().backend();
        if targets.numel() == 0 || backend.checks_later(op, targets, v, self.ignore_index) {
            return;
        }
        // On another device only the answer is fetched, unless there is something to complain about.
        if !targets.device().is_cpu() && !self.outside(targets, v).any().item::<bool>() {
            return;
        }
        let bad = targets.to_vec::<i64>().into_iter().enumerate().find(|&(_, t)| outside(t));
        if let Some((mut at, t)) = bad {
            let mut index = vec![0; positions.rank()];
            for d in (0..positions.rank()).rev() {
                (index[d], at) = (at % positions[d], at / positions[d]);
            }
            let ignored = self.ignore_index.map_or(String::new(), |i| format!(" and is not ignore_index {i}"));
            fail!(Index, op, "target {t} at {index:?} is outside of the classes 0..{v}{ignored}");
        }
    }
    fn outside(&self, targets: &Tensor, v: usize) -> Tensor {
        let bad = targets.lt_scalar(0.0).logical_or(&targets.ge_scalar(v as f64));
        ignored(targets, &self.rows()).map_or(bad.clone(), |ignored| bad.logical_and(&ignored.logical_not()))
    }

    /// The weighted target distribution that the logits are compared with, in the logits' shape `[N, V, …]` and `dtype`:
    /// `q_c = (1 − ε)·w[y]·[c = y] + ε/V·w[c]`, all 0 where the target is ignored. The loss is `−Σ_c q_c ln p_c`.
    pub fn distribution(&self, targets: &Tensor, classes: usize, dtype: DType) -> Tensor {
        rows_distribution(targets, classes, dtype, &self.rows())
    }
}

/// One row `[V, 1, …, 1]` that broadcasts against `[N, V, …]`.
fn per_class(w: &Tensor, targets: &Tensor) -> Tensor {
    let shape: Shape = std::iter::once(w.numel()).chain(targets.dims()[1..].iter().map(|_| 1)).collect();
    w.reshape(shape)
}

fn one_hot(targets: &Tensor, classes: usize) -> Tensor {
    let names = Tensor::arange(0i64, classes as i64, 1).to_device(&targets.device());
    targets.unsqueeze(1).eq(&per_class(&names, targets))
}

fn rows_distribution(targets: &Tensor, classes: usize, dtype: DType, o: &CrossEntropyRows) -> Tensor {
    let eps = o.label_smoothing;
    let mut q = one_hot(targets, classes).to_dtype(dtype) * (1.0 - eps) + eps / classes as f64;
    if let Some(w) = o.weight {
        q = q * per_class(&w.to_dtype(dtype), targets);
    }
    match ignored(targets, o) {
        Some(ignored) => q.masked_fill(&ignored.unsqueeze(1), 0.0),
        None => q,
    }
}

fn ignored(targets: &Tensor, o: &CrossEntropyRows) -> Option<Tensor> {
    o.ignore_index.map(|i| targets.eq(&Tensor::scalar(i).to_device(&targets.device())))
}

/// `[N, V, d…]` as rows `[N·d…, V]`.
fn class_rows(x: &Tensor) -> Tensor {
    let v = x.dims()[1];
    let order: Vec<usize> = (0..x.rank()).filter(|&d| d != 1).chain([1]).collect();
    let positions = x.shape().without(1).numel();
    x.permute_dims(&order).reshape([positions, v])
}

/// The inverse of [`class_rows`], for logits of that shape.
fn from_class_rows(rows: &Tensor, shape: &Shape) -> Tensor {
    let positions = shape.without(1);
    let r = positions.rank();
    let order: Vec<usize> = [0, r].into_iter().chain(1..r).collect();
    rows.reshape(positions.insert(r, shape[1])).permute_dims(&order)
}

impl Tensor {
    /// `lossᵢ = −(1 − ε)·w[yᵢ]·ln p[yᵢ] − ε/V·Σ_c w[c]·ln p[c]` with `p = softmax(logits)` over dimension 1 and ε the label
    /// smoothing: logits `[N, V]` with targets `[N]`, or `[N, V, d1, …]` with `[N, d1, …]`, i64. An ignored target's loss
    /// is 0. The mean reduction divides the sum by `Σ w[yᵢ]` over the targets that count: **NaN if none does**, as in PyTorch.
    /// The result is a scalar, or has the targets' shape for [`Reduction::None`]; it has the logits' dtype, half types compute
    /// in f32.
    ///
    /// # Panics
    /// With an Index error if a target is neither in `0..V` nor `ignore_index`; with a Shape, DType or Value error if the
    /// arguments are not as above.
    #[track_caller]
    pub fn cross_entropy(&self, targets: &Tensor, options: &CrossEntropy) -> Tensor {
        self.cross_entropy_with_stats(targets, options).0
    }
    /// [`cross_entropy`](Tensor::cross_entropy), and what its derivative needs: each position's logsumexp in the targets' shape,
    /// and the sum of the weights of the targets that count; f32 for half types.
    #[track_caller]
    pub fn cross_entropy_with_stats(&self, targets: &Tensor, options: &CrossEntropy) -> (Tensor, Tensor, Tensor) {
        options.check_targets("cross_entropy", self, targets);
        let (x, flat) = (class_rows(self), targets.flatten());
        let rows = options.rows();
        let fused = self.device.backend().cross_entropy(&x, &flat, &rows);
        let (loss, lse, total) = fused.unwrap_or_else(|| composed(&x, &flat, &rows));
        let loss = match options.reduction {
            Reduction::Mean => loss.sum() / &total,
            Reduction::Sum => loss.sum(),
            Reduction::None => loss.reshape(targets.shape()),
        };
        (loss.to_dtype(self.dtype), lse.reshape(targets.shape()), total)
    }
    /// `∂L/∂logits = scaleᵢ·(softmax(logits)·Σ_c q_c − q)`, with q the [`distribution`](CrossEntropy::distribution) of the
    /// targets and `scaleᵢ` the gradient that reaches position i: from `g = ∂L/∂loss` in the loss's shape and the statistics
    /// that [`cross_entropy_with_stats`](Tensor::cross_entropy_with_stats) gave. 0 where the target is ignored.
    #[track_caller]
    pub fn cross_entropy_backward(
        &self,
        targets: &Tensor,
        options: &CrossEntropy,
        lse: &Tensor,
        total: &Tensor,
        g: &Tensor,
    ) -> Tensor {
        let x = class_rows(self);
        let positions = targets.numel();
        let g = widened(g);
        let scale = match options.reduction {
            Reduction::Mean => (g / total).expand(positions),
            Reduction::Sum => g.expand(positions),
            Reduction::None => g.reshape(positions),
        };
        let (flat, lse, rows) = (targets.flatten(), lse.flatten(), options.rows());
        let fused = self.device.backend().cross_entropy_backward(&x, &flat, &lse, &scale, &rows);
        let dx = fused.unwrap_or_else(|| composed_backward(&x, &flat, &lse, &scale, &rows));
        from_class_rows(&dx, self.shape())
    }
    /// Cross-entropy with class probabilities: `lossᵢ = −Σ_c w[c]·((1 − ε)·t[i, c] + ε/V)·ln p[i, c]`, targets of the logits'
    /// shape `[N, V, …]`. The mean reduction divides by the number of positions. A logit of −∞ gives NaN (`0 · ∞`).
    ///
    /// # Panics
    /// As [`cross_entropy`](Tensor::cross_entropy); with a DType error unless targets are floats; with a Value error for an
    /// `ignore_index` ≥ 0, which means nothing here.
    #[track_caller]
    pub fn cross_entropy_probs(&self, targets: &Tensor, options: &CrossEntropy) -> Tensor {
        let q = options.probabilities("cross_entropy_probs", self, targets);
        let loss = -(widened(self).log_softmax(1) * q).sum_dims(1);
        let loss = match options.reduction {
            Reduction::Mean => loss.mean(),
            Reduction::Sum => loss.sum(),
            Reduction::None => loss,
        };
        loss.to_dtype(self.dtype)
    }
}

impl CrossEntropy {
    /// `w·((1 − ε)·targets + ε/V)` in the dtype that losses are computed in, after the checks of
    /// [`Tensor::cross_entropy_probs`].
    #[track_caller]
    pub fn probabilities(&self, op: &'static str, x: &Tensor, targets: &Tensor) -> Tensor {
        self.check(op, x);
        same_device(op, &[x, targets]);
        ensure!(
            targets.dtype().is_float(),
            DType,
            op,
            "targets are probabilities and must be floats, got {} (for class indices: cross_entropy)",
            targets.dtype()
        );
        ensure!(
            targets.shape() == x.shape(),
            Shape,
            op,
            "logits {} need targets of their shape, got {}",
            x.shape(),
            targets.shape()
        );
        let named = self.ignore_index.unwrap_or(-1);
        ensure!(named < 0, Value, op, "ignore_index {named} names a class, and the targets are probabilities");
        let dtype = x.dtype().accumulator();
        let eps = self.label_smoothing;
        let mut q = targets.to_dtype(dtype);
        if eps > 0.0 {
            q = q * (1.0 - eps) + eps / x.dims()[1] as f64;
        }
        match &self.weight {
            Some(w) => {
                let shape: Shape = std::iter::once(w.numel()).chain(x.dims()[2..].iter().map(|_| 1)).collect();
                q * w.to_dtype(dtype).reshape(shape)
            }
            None => q,
        }
    }
}

/// Cross-entropy of the rows of `[P, V]` in elementwise operations and reductions:
/// `(loss [P], logsumexp [P], Σ w[target] [])`, what a backend without the fused kernel runs.
pub fn composed(x: &Tensor, targets: &Tensor, o: &CrossEntropyRows) -> (Tensor, Tensor, Tensor) {
    let x = widened(x);
    let (v, dtype) = (x.dims()[1], x.dtype());
    if v == 0 {
        // No class: every target is ignored.
        let none = Tensor::full_on(targets.shape(), 0.0, dtype, &x.device());
        return (none.clone(), none.full_like(f64::NEG_INFINITY), none.sum());
    }
    let max = if x.numel() == 0 { x.sum_keepdims(1) } else { x.max_keepdims(1) };
    let log_sum = (&x - &max).exp().sum_keepdims(1).log();
    let q = rows_distribution(targets, v, dtype, o);
    // A class that nobody asks for may have the logit −∞.
    let log_p = (&x - &max - &log_sum).masked_fill(&q.eq_scalar(0.0), 0.0);
    let loss = -(q * log_p).sum_dims(1);
    let hits = CrossEntropyRows { label_smoothing: 0.0, ..*o };
    (loss, (max + log_sum).squeeze(1), rows_distribution(targets, v, dtype, &hits).sum())
}

/// The gradient of [`composed`]'s `Σ scale · loss`, likewise.
pub fn composed_backward(x: &Tensor, targets: &Tensor, lse: &Tensor, scale: &Tensor, o: &CrossEntropyRows) -> Tensor {
    let wide = widened(x);
    let q = rows_distribution(targets, x.dims()[1], wide.dtype(), o);
    let p = (wide - lse.unsqueeze(1)).exp();
    let dx = (p * q.sum_keepdims(1) - q) * scale.unsqueeze(1);
    let dx = ignored(targets, o).map_or(dx.clone(), |ignored| dx.masked_fill(&ignored.unsqueeze(1), 0.0));
    dx.to_dtype(x.dtype())
}
