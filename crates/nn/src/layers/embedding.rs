//! Rows of a table by their numbers.

use crate::{Module, Param, init};
use ferrograd_autograd::Var;
use ferrograd_tensor::{Tensor, ensure};

/// `y[i…] = weight[x[i…]]`: integers of any shape `[…]` → `[…, embedding_dim]`.
///
/// Parameter: `weight` `[num_embeddings, embedding_dim]` from N(0, 1). With a `padding_idx`, that row starts at zero and
/// gets no gradient.
#[derive(Module)]
#[module(extra_repr)]
pub struct Embedding {
    /// `[num_embeddings, embedding_dim]`.
    pub weight: Param,
    padding_idx: Option<usize>,
}
layer!(Embedding);

impl Embedding {
    /// A table of `num_embeddings` rows.
    pub fn new(num_embeddings: usize, embedding_dim: usize) -> Embedding {
        let weight = Param::new(init::normal([num_embeddings, embedding_dim], 0.0, 1.0));
        Embedding { weight, padding_idx: None }
    }
    /// A table of existing rows `[num_embeddings, embedding_dim]`: a tensor, or another layer's parameter (tied weights).
    #[track_caller]
    pub fn from_weight(weight: impl Into<Param>) -> Embedding {
        let weight = weight.into();
        let [_, _] = weight.tensor().dims_of("Embedding::from_weight");
        Embedding { weight, padding_idx: None }
    }
    /// Row `index` stands for padding: set to zero now, and without a gradient later.
    ///
    /// # Panics
    /// If there is no such row.
    #[track_caller]
    pub fn padding_idx(mut self, index: usize) -> Embedding {
        let n = self.num_embeddings();
        ensure!(index < n, Index, "Embedding", "padding_idx {index} is not below num_embeddings {n}");
        self.weight.update(|w| {
            let row = Tensor::arange(0, n as i64, 1).eq_scalar(index as f64).unsqueeze(1).to_device(&w.device());
            *w = w.masked_fill(&row, 0.0);
        });
        self.padding_idx = Some(index);
        self
    }
    /// Rows of the table.
    pub fn num_embeddings(&self) -> usize {
        self.weight.tensor().dim(0)
    }
    /// Length of a row.
    pub fn embedding_dim(&self) -> usize {
        self.weight.tensor().dim(1)
    }
    /// Integers `[…]` → `[…, embedding_dim]`.
    ///
    /// # Panics
    /// If `indices` are no integers, or one lies outside `0..num_embeddings`.
    #[track_caller]
    pub fn forward(&self, indices: impl AsRef<Tensor>) -> Var {
        let indices = indices.as_ref();
        ensure!(
            indices.dtype().is_int(),
            DType,
            "Embedding",
            "expected integers, got {} of {} ({self})",
            indices.shape(),
            indices.dtype()
        );
        self.weight.var().embedding(indices, self.padding_idx)
    }
    fn extra_repr(&self) -> String {
        let padding = self.padding_idx.map(|i| format!(", padding_idx={i}")).unwrap_or_default();
        format!("{}, {}{padding}", self.num_embeddings(), self.embedding_dim())
    }
}
