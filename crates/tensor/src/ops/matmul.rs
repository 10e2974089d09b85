//! Matrix products.

use crate::shape::Shape;
use crate::tensor::same_device;
use crate::{DType, Tensor, ensure, fail};
use std::sync::atomic::{AtomicBool, Ordering};

/// How exact products of f32 matrices are, where a device has a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatmulPrecision {
    /// Products and sums in f32.
    #[default]
    Highest,
    /// The operands are rounded to TF32, 10 bits after the point instead of 23 (a relative error of 2⁻¹¹ each), and the sums are f32:
    /// on a card tensor cores do that, several times as fast. Products of vectors stay exact, and so does the CPU.
    Tf32,
}

static TF32: AtomicBool = AtomicBool::new(false);

/// How exact products of f32 matrices are from here on, in the whole program.
///
/// ```
/// use ferrograd_tensor::{MatmulPrecision, matmul_precision, set_matmul_precision};
/// assert_eq!(matmul_precision(), MatmulPrecision::Highest);
/// set_matmul_precision(MatmulPrecision::Tf32);
/// ```
pub fn set_matmul_precision(precision: MatmulPrecision) {
    TF32.store(precision == MatmulPrecision::Tf32, Ordering::Relaxed);
}

/// What [`set_matmul_precision`] has set; [`Highest`](MatmulPrecision::Highest) if nobody has.
pub fn matmul_precision() -> MatmulPrecision {
    if TF32.load(Ordering::Relaxed) { MatmulPrecision::Tf32 } else { MatmulPrecision::Highest }
}

impl Tensor {
    /// `C[…, m, n] = Σ_k A[…, m, k] · B[…, k, n]`: `[…, M, K] × […, K, N]`, leading dimensions broadcast. A vector on
    /// the left counts as a row, one on the right as a column, and that dimension is absent from the result.
    ///
    /// dtypes are promoted; half types accumulate in f32, bool is not defined.
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        const OP: &str = "matmul";
        same_device(OP, &[self, other]);
        let dtype = self.dtype.promote(other.dtype);
        ensure!(dtype != DType::Bool, DType, OP, "not defined for bool (cast with to_dtype)");
        ensure!(
            self.rank() > 0 && other.rank() > 0,
            Shape,
            OP,
            "operands need at least 1 dimension: {} × {}",
            self.shape(),
            other.shape()
        );
        let (row, column) = (self.rank() == 1, other.rank() == 1);
        let a = if row { self.unsqueeze(0) } else { self.clone() };
        let b = if column { other.unsqueeze(1) } else { other.clone() };
        let (k, l) = (a.dims()[a.rank() - 1], b.dims()[b.rank() - 2]);
        if k != l {
            fail!(Shape, OP, "inner dimensions differ: {} × {} ({k} ≠ {l})", self.shape(), other.shape());
        }
        let mut out = batched(OP, &a.to_dtype(dtype), &b.to_dtype(dtype));
        if column {
            out = out.squeeze(-1);
        }
        if row {
            out = out.squeeze(if column { -1 } else { -2 });
        }
        out
    }
}

impl Tensor {
    /// `[M, K] × [K, N]` of one float dtype, and `bias` `[N]` on each row; rounded once.
    #[track_caller]
    pub(crate) fn matmul_bias(&self, other: &Tensor, bias: &Tensor) -> Tensor {
        same_device("matmul", &[self, other, bias]);
        self.device.backend().matmul_bias(self, other, bias).unwrap_or_else(|| {
            let wide = |x: &Tensor| x.to_dtype(x.dtype.accumulator());
            let mut y = wide(self).matmul(&wide(other));
            y.add_assign(&wide(bias));
            y.to_dtype(self.dtype)
        })
    }
}

#[track_caller]
fn batched(op: &'static str, a: &Tensor, b: &Tensor) -> Tensor {
    let [m, k] = [a.dim(-2), a.dim(-1)];
    let n = b.dim(-1);
    // One matrix for the whole batch: the batch's rows are one tall matrix.
    if b.rank() == 2 && a.rank() > 2 && k > 0 {
        let rows = a.numel() / k;
        // Rows that do not line up are copied, unless the copy would be much of the work.
        const COLUMNS: usize = 16;
        let flat = match a.layout.reshape(&[rows, k].into()) {
            Some(layout) => Some(a.with_layout(layout)),
            None => (n >= COLUMNS).then(|| a.contiguous().reshape([rows, k])),
        };
        if let Some(flat) = flat {
            let shape: Shape = a.dims()[..a.rank() - 1].iter().copied().chain([n]).collect();
            return a.device.backend().matmul(&flat, b).reshape(shape);
        }
    }
    let lead = |t: &Tensor| Shape::from(&t.dims()[..t.rank() - 2]);
    let batch = lead(a).broadcast(&lead(b), op);
    let full = |t: &Tensor, r: usize, c: usize| {
        let shape: Shape = batch.iter().copied().chain([r, c]).collect();
        t.with_layout(t.layout.expand(&shape, op))
    };
    a.device.backend().matmul(&full(a, m, k), &full(b, k, n))
}
