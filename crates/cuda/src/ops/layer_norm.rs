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

/// The programs of one norm: of rows, and of their sums with others.
pub struct Norm {
    /// Does it subtract the mean?
    centered: bool,
    forward: [Program; 2],
    backward: [Program; 2],
}

/// What is defined for the programs of sums.
const ADDED: &str = "ADDED";

pub const LAYER_NORM: Norm = Norm {
    centered: true,
    forward: [("layer_norm.cu", ""), ("layer_norm.cu", ADDED)],
    backward: [("layer_norm_backward.cu", ""), ("layer_norm_backward.cu", ADDED)],
};
pub const RMS_NORM: Norm = Norm {
    centered: false,
    forward: [("rms_norm.cu", ""), ("rms_norm.cu", ADDED)],
    backward: [("rms_norm_backward.cu", ""), ("rms_norm_backward.cu", ADDED)],
};

/// What a norm gives.
pub struct Normed {
    pub y: Tensor,
    /// What was normalised, if it is a sum.
    pub sum: Option<Tensor>,
    /// If it was subtracted.
    pub mean: Option<Tensor>,
    pub rstd: Tensor,
}

/// One run of memory that begins at a multiple of 16 bytes, so that vectors of it can be read.
pub fn in_vectors(cuda: &'static Cuda, x: &Tensor) -> Tensor {
    if x.is_contiguous() && address(x).is_multiple_of(16) { x.clone() } else { super::copy::copy(cuda, x) }
}

/// A pointer to the tensor's element 0, or null.
pub fn optional(arguments: Arguments, x: Option<&Tensor>) -> Arguments {
    match x {
        Some(x) => arguments.tensor(x),
        None => arguments.value(0u64),
    }
}

impl Norm {
    /// Of the rows of `x`, or of their sums with those of `residual`.
    #[track_caller]
    pub fn forward(
        &self,
        cuda: &'static Cuda,
        x: &Tensor,
        residual: Option<&Tensor>,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> Normed {
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
        let sum = residual.map(|_| cuda.empty(x.shape(), x.dtype()));
        let [plain, added] = self.forward;
        // SAFETY: the kernels take two operands of one dtype, those of sums four; parameters have an element for each column,
        // statistics for each row.
        match (residual, &sum) {
            (Some(residual), Some(sum)) => unsafe { launch_rows(cuda, added, 1, [x, residual, sum, &y], rest) },
            _ => unsafe { launch_rows(cuda, plain, 1, [x, &y], rest) },
        }
        Normed { y, sum, mean, rstd }
    }

    /// `(dx, (dweight, dbias) if parameters)`; `others`, if there is one, is added to dx.
    #[track_caller]
    pub fn backward(
        &self,
        cuda: &'static Cuda,
        x: &Tensor,
        weight: Option<&Tensor>,
        mean: Option<&Tensor>,
        rstd: &Tensor,
        g: &Tensor,
        others: Option<&Tensor>,
        parameters: bool,
    ) -> (Tensor, Option<(Tensor, Tensor)>) {
        let dx = cuda.empty(x.shape(), x.dtype());
        let n = x.dims()[1];
        if x.numel() == 0 {
            let none = || full(cuda, &n.into(), x.dtype(), 0.0);
            return (dx, parameters.then(|| (none(), none())));
        }
        let (mean, rstd) = (mean.map(Tensor::contiguous), rstd.contiguous());
        let weight = weight.map(|w| in_vectors(cuda, w));
        let rest = |arguments| optional(optional(arguments, weight.as_ref()), mean.as_ref()).tensor(&rstd);
        let [plain, added] = self.backward;
        // SAFETY: the kernels take three operands of one dtype, those of sums four, and then these.
        let sums = match others {
            Some(others) => unsafe { accumulate_rows(cuda, added, [x, g, others, &dx], parameters, rest) },
            None => unsafe { accumulate_rows(cuda, plain, [x, g, &dx], parameters, rest) },
        };
        (dx, sums.map(|sums| totals(cuda, &sums, x.dtype())))
    }
}

/// Launches a program of `kernels/norm_backward.cuh` on rows `[R, N]`: the operands, the rows, `rest`, and the sums `[blocks, N, 2]` of
/// each block and column, Σ g·x̂ and Σ g, which are returned if `parameters` has them made.
///
/// # Safety
/// The program's kernels take so many operands of this dtype, and `rest`.
#[track_caller]
unsafe fn accumulate_rows<const N: usize>(
    cuda: &'static Cuda,
    (file, define): Program,
    operands: [&Tensor; N],
    parameters: bool,
    rest: impl FnOnce(Arguments) -> Arguments,
) -> Option<Tensor> {
    let rows = Rows::along(1, operands);
    let (name, blocks, block) = rows.accumulating();
    let (n, dtype) = (operands[0].dims()[1], operands[0].dtype());
    let sums = parameters.then(|| cuda.empty(&[blocks, n, 2].into(), dtype.accumulator()));
    let arguments = operands.iter().fold(Arguments::default(), |a, x| a.tensor(x)).value(rows.described);
    let id = KernelId { file, define, name, dtype: Some(dtype) };
    // SAFETY: the caller's promise; the rows are the operands', and there are sums for each block and column.
    unsafe { cuda.launch(id, [blocks as u32, 1, 1], block, 0, optional(rest(arguments), sums.as_ref())) };
    sums
}

/// The sums of all blocks `[blocks, N, 2]`, as two tensors `[N]`.
fn totals(cuda: &'static Cuda, sums: &Tensor, dtype: DType) -> (Tensor, Tensor) {
    let totals = reduce(cuda, Reduce::Sum, sums, &[0]);
    let column = |k| cast(cuda, &totals.select(2, k).squeeze(0), dtype);
    (column(0), column(1))
}

/// Every program of these operations.
pub fn programs() -> impl Iterator<Item = Program> {
    [LAYER_NORM, RMS_NORM].into_iter().flat_map(|norm| norm.forward.into_iter().chain(norm.backward))
}
