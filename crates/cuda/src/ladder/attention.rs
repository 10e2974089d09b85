//! Attention: `kernels/ladder/attention/`.

use super::{card, row_major};
use crate::cuda::Cuda;
use crate::launch::Arguments;
use crate::programs::KernelId;
use ferrograd_tensor::{DType, Tensor, ensure};

/// The head dimension that the ladder is written for.
const D: usize = 64;

/// A step of the ladder of attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionStep {
    /// The file's name, without its ending.
    pub name: &'static str,
    pub(super) file: &'static str,
    /// Of the operands; the result is f32.
    pub dtype: DType,
    /// Queries of a block, and its threads.
    queries: usize,
    threads: u32,
}

macro_rules! step {
    ($name:literal, $dtype:ident, $queries:literal, $threads:literal) => {
        AttentionStep {
            name: $name,
            file: concat!("ladder/attention/", $name, ".cu"),
            dtype: DType::$dtype,
            queries: $queries,
            threads: $threads,
        }
    };
}

/// All steps, in order.
pub const ATTENTION: [AttentionStep; 5] = [
    step!("01_naive", F32, 1, 256),
    step!("02_online", F32, 128, 128),
    step!("03_shared", F32, 128, 128),
    step!("04_tensor_core", BF16, 64, 128),
    step!("05_pipelined", BF16, 64, 128),
];

impl AttentionStep {
    /// `softmax(Q Kᵀ / √64) V`, all `[H, T, 64]`, of the step's dtype and on one card; in f32. Operands that are not row-major are
    /// copied first.
    ///
    /// # Panics
    /// If the operands are no such tensors.
    #[track_caller]
    pub fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let shape = q.shape();
        let fits = q.rank() == 3 && q.dim(2) == D && shape == k.shape() && shape == v.shape();
        let shapes = format!("{shape}, {}, {}", k.shape(), v.shape());
        ensure!(fits, Shape, self.name, "needs queries, keys and values of one shape [H, T, {D}]: {shapes}");
        let [heads, time, _] = q.dims_of(self.name);
        ensure!(heads.max(time) < 1 << 16, Shape, self.name, "needs H and T below 2¹⁶: {shapes}");
        let cuda = card(self.name, &[q, k, v], self.dtype);
        let [q, k, v] = [q, k, v].map(|x| row_major(x, true));
        let out = cuda.empty(shape, DType::F32);
        if out.numel() == 0 {
            return out;
        }
        if self.queries == 1 {
            self.in_three_kernels(cuda, [&q, &k, &v], &out);
            return out;
        }
        let arguments = Arguments::default().tensor(&q).tensor(&k).tensor(&v).tensor(&out);
        let arguments = arguments.value(time as i32).value(scale());
        let grid = [time.div_ceil(self.queries) as u32, heads as u32, 1];
        // SAFETY: row-major tensors of this shape, of the dtype that the kernel is written for.
        unsafe { cuda.launch(self.kernel("attention"), grid, self.threads, 0, arguments) };
        out
    }

    /// Step 1, with the scores in memory.
    #[track_caller]
    fn in_three_kernels(&self, cuda: &'static Cuda, [q, k, v]: [&Tensor; 3], out: &Tensor) {
        let [heads, time, _] = q.dims_of(self.name);
        let s = cuda.empty(&[heads, time, time].into(), DType::F32);
        let (t, h) = (time as u32, heads as u32);
        let arguments = Arguments::default().tensor(q).tensor(k).tensor(&s).value(time as i32).value(scale());
        let grid = [t.div_ceil(self.threads), t, h];
        // SAFETY: row-major tensors of this shape, and room for all scores.
        unsafe { cuda.launch(self.kernel("scores"), grid, self.threads, 0, arguments) };
        let arguments = Arguments::default().tensor(&s).value((heads * time) as i64).value(time as i32);
        let grid = [(heads * time).div_ceil(self.threads as usize / 32) as u32, 1, 1];
        // SAFETY: as above.
        unsafe { cuda.launch(self.kernel("softmax"), grid, self.threads, 0, arguments) };
        let arguments = Arguments::default().tensor(&s).tensor(v).tensor(out).value(time as i32);
        // SAFETY: as above.
        unsafe { cuda.launch(self.kernel("values"), [1, t, h], D as u32, 0, arguments) };
    }

    fn kernel(&self, name: &'static str) -> KernelId {
        KernelId { file: self.file, define: "", name, dtype: None }
    }
}

/// 1/√D
fn scale() -> f32 {
    (D as f32).sqrt().recip()
}
