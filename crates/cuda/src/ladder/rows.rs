//! What is done to each row of a matrix: `kernels/ladder/softmax/` and `kernels/ladder/layer_norm/`.

use super::{card, row_major};
use crate::launch::Arguments;
use crate::programs::KernelId;
use ferrograd_tensor::{DType, Tensor, ensure};

/// A step of the ladder of softmax or of that of layer norm, in f32.
#[derive(Clone, Copy, Debug)]
pub struct RowStep {
    /// The file's name, without its ending.
    pub name: &'static str,
    pub(super) file: &'static str,
    kernel: &'static str,
    /// What N has to be a multiple of.
    pub multiple: usize,
    /// The largest N.
    pub longest: usize,
    /// Rows of a block.
    rows: usize,
}

/// ε of the ladder's layer norm.
const EPS: f32 = 1e-5;
/// Where the row stays in registers.
const KEPT: usize = 8192;
const ANY: usize = i32::MAX as usize;

macro_rules! step {
    ($kernel:literal, $name:literal, $multiple:literal, $longest:expr, $rows:literal) => {
        RowStep {
            name: $name,
            file: concat!("ladder/", $kernel, "/", $name, ".cu"),
            kernel: $kernel,
            multiple: $multiple,
            longest: $longest,
            rows: $rows,
        }
    };
}

/// Softmax along the rows, in order.
pub const SOFTMAX: [RowStep; 5] = [
    step!("softmax", "01_naive", 1, ANY, 256),
    step!("softmax", "02_coalesced", 1, ANY, 1),
    step!("softmax", "03_online", 1, ANY, 1),
    step!("softmax", "04_registers", 1, KEPT, 1),
    step!("softmax", "05_vectorised", 4, KEPT, 1),
];

/// Layer norm of the rows, `(x − μ) / √(σ² + 10⁻⁵)`, in order.
pub const LAYER_NORM: [RowStep; 5] = [
    step!("layer_norm", "01_naive", 1, ANY, 256),
    step!("layer_norm", "02_coalesced", 1, ANY, 1),
    step!("layer_norm", "03_one_pass", 1, ANY, 1),
    step!("layer_norm", "04_registers", 1, KEPT, 1),
    step!("layer_norm", "05_vectorised", 4, KEPT, 1),
];

impl RowStep {
    /// Of each row of `[rows, N]`, f32 and on a card. An operand that is not row-major is copied first.
    ///
    /// # Panics
    /// If the operand is no such matrix.
    #[track_caller]
    pub fn apply(&self, x: &Tensor) -> Tensor {
        ensure!(x.rank() == 2, Shape, self.name, "needs a matrix, not {}", x.shape());
        let [rows, n] = x.dims_of(self.name);
        let fits = rows < ANY && n <= self.longest && n % self.multiple == 0;
        let Self { longest, multiple, .. } = self;
        ensure!(fits, Shape, self.name, "needs N ≤ {longest}, a multiple of {multiple}: {}", x.shape());
        let cuda = card(self.name, &[x], DType::F32);
        let (x, y) = (row_major(x, self.multiple > 1), cuda.empty(x.shape(), DType::F32));
        if y.numel() > 0 {
            let arguments = Arguments::default().tensor(&x).tensor(&y).value(rows as i32).value(n as i32);
            let arguments = if self.kernel == "layer_norm" { arguments.value(EPS) } else { arguments };
            let id = KernelId { file: self.file, define: "", name: self.kernel, dtype: None };
            let grid = [rows.div_ceil(self.rows) as u32, 1, 1];
            // SAFETY: row-major matrices of these sizes.
            unsafe { cuda.launch(id, grid, 256, 0, arguments) };
        }
        y
    }
}
