//! Matrix products: `∂/∂A (AB) = G Bᵀ`, `∂/∂B (AB) = Aᵀ G`.

use super::cast::promote;
use crate::{Function, Saved, Var};
use ferrograd_tensor::Tensor;

/// `[…, M, K] × […, K, N]`; both operands have at least two dimensions.
struct Matmul;
impl Function for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        vec![x[0].matmul(&x[1])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let g = g[0].as_ref().unwrap();
        let (a, b) = (saved.input(0), saved.input(1));
        let da = saved.needs_grad(0).then(|| g.matmul(&b.t()).sum_to(a.shape()));
        let db = saved.needs_grad(1).then(|| {
            if b.rank() == 2 && a.rank() > 2 {
                // One product over all rows of the batch, rather than a product per batch and a sum.
                let rows = |x: &Var| x.reshape([x.numel() / x.dim(-1).max(1), x.dim(-1)]);
                if a.numel() > 0 && g.numel() > 0 {
                    return rows(&a).t().matmul(&rows(g));
                }
            }
            a.t().matmul(g).sum_to(b.shape())
        });
        vec![da, db]
    }
}

impl Var {
    /// `C[…, m, n] = Σ_k A[…, m, k] · B[…, k, n]`; leading dimensions broadcast, vectors count as rows on the left and
    /// columns on the right, see [`Tensor::matmul`]. Computes in the autocast dtype.
    #[track_caller]
    pub fn matmul(&self, other: &Var) -> Var {
        let [a, b] = promote("matmul", [&self.lowered(), &other.lowered()]);
        match (a.rank(), b.rank()) {
            (1, 1) if a.dim(0) == b.dim(0) => a.reshape([1, a.dim(0)]).matmul(&b.reshape([b.dim(0), 1])).reshape(()),
            (1, r) if r > 1 && a.dim(0) == b.dim(-2) => {
                let y = a.reshape([1, a.dim(0)]).matmul(&b);
                let shape: ferrograd_tensor::Shape =
                    y.dims().iter().enumerate().filter(|(d, _)| d + 2 != y.rank()).map(|(_, &n)| n).collect();
                y.reshape(shape)
            }
            (r, 1) if r > 1 && a.dim(-1) == b.dim(0) => {
                let y = a.matmul(&b.reshape([b.dim(0), 1]));
                y.reshape(&y.dims()[..y.rank() - 1])
            }
            _ => Matmul.apply1(&[&a, &b]),
        }
    }
}
