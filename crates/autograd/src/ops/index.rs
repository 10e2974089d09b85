//! Reading and adding by index, each the other's derivative.

use super::cast::promote;
use crate::{Function, Saved, Var};
use ferrograd_tensor::Tensor;

/// Zeros like input 0, to which its gradient is added: a single one, repeated, which the addition's copy makes room for.
pub(super) fn zeros(saved: &Saved, g: &Var) -> Var {
    Var::constant(Tensor::full_on((), 0.0, g.dtype(), &g.device()).expand(saved.input_shape(0)))
}

/// `y[…, i, …] = x[…, index[…, i, …], …]`; the gradient is added up at the indices.
struct Gather {
    dim: isize,
    index: Tensor,
}
impl Function for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].gather(self.dim, &self.index)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| zeros(saved, g).scatter_add(self.dim, &self.index, g))]
    }
}

/// `y = x; y[…, index[…, i, …], …] += src[…, i, …]`; src's gradient is read at the indices.
struct ScatterAdd {
    dim: isize,
    index: Tensor,
}
impl Function for ScatterAdd {
    fn name(&self) -> &'static str {
        "scatter_add"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].scatter_add(self.dim, &self.index, &x[1])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None, None] };
        let src = saved.needs_grad(1).then(|| g.gather(self.dim, &self.index));
        vec![saved.needs_grad(0).then(|| g.clone()), src]
    }
}

/// `y[…, j, …] = x[…, index[j], …]`; the gradient is added up at the indices.
struct IndexSelect {
    dim: isize,
    index: Tensor,
}
impl Function for IndexSelect {
    fn name(&self) -> &'static str {
        "index_select"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].index_select(self.dim, &self.index)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| zeros(saved, g).index_add(self.dim, &self.index, g))]
    }
}

/// `y = x; y[…, index[j], …] += src[…, j, …]`; src's gradient is read at the indices.
struct IndexAdd {
    dim: isize,
    index: Tensor,
}
impl Function for IndexAdd {
    fn name(&self) -> &'static str {
        "index_add"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].index_add(self.dim, &self.index, &x[1])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None, None] };
        let src = saved.needs_grad(1).then(|| g.index_select(self.dim, &self.index));
        vec![saved.needs_grad(0).then(|| g.clone()), src]
    }
}

/// Rows of a table; the rows' gradients are added up, in the order of the indices, without those of `padding_idx`.
struct Embedding {
    indices: Tensor,
    padding_idx: Option<usize>,
}
impl Function for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].embedding(&self.indices, self.padding_idx)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None] };
        let index = self.indices.flatten();
        let rows = saved.input_shape(0).with(0, index.numel());
        let mut g = g.reshape(&rows);
        if let Some(padding) = self.padding_idx {
            let mut shape = vec![1; rows.rank()];
            shape[0] = index.numel();
            let padded = index.eq_scalar(padding as f64).reshape(shape);
            g = match saved.create_graph() {
                true => g * &padded.logical_not().to_dtype(saved.input_dtype(0)),
                false => Var::constant(g.tensor().masked_fill(&padded, 0.0)),
            };
        }
        vec![Some(zeros(saved, &g).index_add(0, &index, &g))]
    }
}

impl Var {
    /// `y[…, i, …] = x[…, index[…, i, …], …]`, see [`Tensor::gather`].
    #[track_caller]
    pub fn gather(&self, dim: isize, index: &Tensor) -> Var {
        Gather { dim, index: index.clone() }.apply1(&[self])
    }
    /// `y = x; y[…, index[…, i, …], …] += src[…, i, …]`, see [`Tensor::scatter_add`]; dtypes are promoted.
    #[track_caller]
    pub fn scatter_add(&self, dim: isize, index: &Tensor, src: &Var) -> Var {
        let [x, src] = promote("scatter_add", [self, src]);
        ScatterAdd { dim, index: index.clone() }.apply1(&[&x, &src])
    }
    /// `y[…, j, …] = x[…, index[j], …]`, see [`Tensor::index_select`].
    #[track_caller]
    pub fn index_select(&self, dim: isize, index: &Tensor) -> Var {
        IndexSelect { dim, index: index.clone() }.apply1(&[self])
    }
    /// `y = x; y[…, index[j], …] += src[…, j, …]`, see [`Tensor::index_add`]; dtypes are promoted.
    #[track_caller]
    pub fn index_add(&self, dim: isize, index: &Tensor, src: &Var) -> Var {
        let [x, src] = promote("index_add", [self, src]);
        IndexAdd { dim, index: index.clone() }.apply1(&[&x, &src])
    }
    /// The rows of this table `[V, …]` that `indices`, of any shape, name: `[indices…, …]`, see [`Tensor::embedding`].
    /// Row `padding_idx` gets no gradient.
    #[track_caller]
    pub fn embedding(&self, indices: &Tensor, padding_idx: Option<usize>) -> Var {
        Embedding { indices: indices.clone(), padding_idx }.apply1(&[self])
    }
}
