//! Layer norm of the rows of `[R, N]`, and what RMS norm has in common with it.

use super::elementwise::{cast, full};
use super::reduce::reduce;
use super::rows::{Rows, launch_rows};
use crate::cuda::Cuda;
use crate::launch::Arguments;
use crate::memory::address;
use crate::programs::{KernelId, Program};
use ferrograd_tensor::backend::Reduce;
use ferrograd_tensor::{DType, Tensor};

/// The programs of one norm.
pub struct Norm {
    /// Does it subtract the mean?
    centered: bool,
    forward: Program,
    backward: Program,
}

pub const LAYER_NORM: Norm =
    Norm { centered: true, forward: ("layer_norm.cu", ""), backward: ("layer_norm_backward.cu", "") };
pub const RMS_NORM: Norm =
    Norm { centered: false, forward: ("rms_norm.cu", ""), backward: ("rms_norm_backward.cu", "") };

/// One run of memory that begins at a multiple of 16 bytes, so that vectors of it can be read.
pub fn in_vectors(cuda: &'static Cuda, x: &Tensor) -> Tensor {
    if x.is_contiguous() && address(x).is_multiple_of(16) { x.clone() } else { super::elementwise::copy(cuda, x) }
}

/// A pointer to the tensor's element 0, or null.
pub fn optional(arguments: Arguments, x: Option<&Tensor>) -> Arguments {
    match x {
        Some(x) => arguments.tensor(x),
        None => arguments.value(0u64),
    }
}

impl Norm {
    /// `(y, mean, rstd)`; there is no mean where it is not subtracted.
    #[track_caller]
    pub fn forward(
        &self,
        cuda: &'static Cuda,
        x: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> (Tensor, Option<Tensor>, Tensor) {
        let (rows, dtype) = (x.dims()[0], x.dtype().accumulator());
        let y = cuda.empty(x.shape(), x.dtype());
        let statistic = || match x.dims()[1] {
            0 => full(cuda, &rows.into(), dtype, f64::NAN),
            _ => cuda.empty(&rows.into(), dtype),
        };
        let (mean, rstd) = (self.centered.then(statistic), statistic());
        let [weight, bias] = [weight, bias].map(|p| p.map(|p| in_vectors(cuda, p)));
        let rest = |arguments| {
            let arguments = optional(optional(arguments, weight.as_ref()), bias.as_ref());
            optional(arguments, mean.as_ref()).tensor(&rstd).value(eps)
        };
        // SAFETY: the kernels take two operands of one dtype; parameters have an element for each column, statistics for each row.
        unsafe { launch_rows(cuda, self.forward, 1, [x, &y], rest) };
        (y, mean, rstd)
    }

    /// `(dx, (dweight, dbias) if parameters)`.
    #[track_caller]
    pub fn backward(
        &self,
        cuda: &'static Cuda,
        x: &Tensor,
        weight: Option<&Tensor>,
        mean: Option<&Tensor>,
        rstd: &Tensor,
        g: &Tensor,
        parameters: bool,
    ) -> (Tensor, Option<(Tensor, Tensor)>) {
        let dx = cuda.empty(x.shape(), x.dtype());
        let n = x.dims()[1];
        if x.numel() == 0 {
            let none = || full(cuda, &n.into(), x.dtype(), 0.0);
            return (dx, parameters.then(|| (none(), none())));
        }
        let rows = Rows::along(1, [x, g, &dx]);
        let (name, blocks, block) = rows.accumulating();
        // For each block and column, Σ g·x̂ and Σ g.
        let sums = parameters.then(|| cuda.empty(&[blocks, n, 2].into(), x.dtype().accumulator()));
        let (mean, rstd) = (mean.map(Tensor::contiguous), rstd.contiguous());
        let weight = weight.map(|w| in_vectors(cuda, w));
        let arguments = Arguments::default().tensor(x).tensor(g).tensor(&dx).value(rows.described);
        let arguments = optional(optional(arguments, weight.as_ref()), mean.as_ref()).tensor(&rstd);
        let (file, define) = self.backward;
        let id = KernelId { file, define, name, dtype: Some(x.dtype()) };
        // SAFETY: the rows are the operands', of one dtype; there are sums for each block and column.
        unsafe { cuda.launch(id, [blocks as u32, 1, 1], block, 0, optional(arguments, sums.as_ref())) };
        (dx, sums.map(|sums| totals(cuda, &sums, x.dtype())))
    }
}

/// The sums of all blocks `[blocks, N, 2]`, as two tensors `[N]`.
fn totals(cuda: &'static Cuda, sums: &Tensor, dtype: DType) -> (Tensor, Tensor) {
    let totals = reduce(cuda, Reduce::Sum, sums, &[0]);
    let column = |k| cast(cuda, &totals.select(2, k).squeeze(0), dtype);
    (column(0), column(1))
}

/// Every program of these operations.
pub const PROGRAMS: [Program; 4] = [LAYER_NORM.forward, LAYER_NORM.backward, RMS_NORM.forward, RMS_NORM.backward];
