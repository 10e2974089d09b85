//! Matrix products: `kernels/ladder/matmul/`.

use super::{card, row_major};
use crate::cuda::Cuda;
use crate::launch::Arguments;
use crate::ops::matmul_wgmma::{HOPPER, panels};
use crate::programs::KernelId;
use ferrograd_tensor::backend::Backend;
use ferrograd_tensor::{DType, Device, Tensor, ensure};

/// A step of the ladder of matrix products.
#[derive(Clone, Copy, Debug)]
pub struct MatmulStep {
    /// The file's name, without its ending.
    pub name: &'static str,
    pub(super) file: &'static str,
    /// Of both operands; the result is f32.
    pub dtype: DType,
    /// What K and N have to be multiples of.
    pub multiple: usize,
    /// Rows and columns of C that a block makes, and its threads.
    tile: [usize; 2],
    threads: u32,
    /// Is it for Hopper only, and takes tensor maps and this much dynamic shared memory?
    hopper: Option<u32>,
}

macro_rules! step {
    ($name:literal, $dtype:ident, $multiple:literal, $tile:expr, $threads:literal, $hopper:expr) => {
        MatmulStep {
            name: $name,
            file: concat!("ladder/matmul/", $name, ".cu"),
            dtype: DType::$dtype,
            multiple: $multiple,
            tile: $tile,
            threads: $threads,
            hopper: $hopper,
        }
    };
}

/// Step 9's ring: four places for 64 rows and 128 columns by 64 numbers along K, and their barriers.
const RING: u32 = 4 * ((64 + 128) * 64 * 2 + 8);

/// All steps, in order.
pub const MATMUL: [MatmulStep; 9] = [
    step!("01_naive", F32, 1, [32, 8], 256, None),
    step!("02_coalesced", F32, 1, [8, 32], 256, None),
    step!("03_shared", F32, 1, [16, 16], 256, None),
    step!("04_register_tile", F32, 1, [128, 128], 256, None),
    step!("05_vectorised", F32, 4, [128, 128], 256, None),
    step!("06_tensor_core", BF16, 8, [64, 64], 128, None),
    step!("07_pipelined", BF16, 8, [64, 64], 128, None),
    step!("08_swizzled", BF16, 8, [64, 64], 128, None),
    step!("09_wgmma", BF16, 8, [64, 128], 128, Some(RING)),
];

impl MatmulStep {
    /// Is this a card that the step is written for?
    pub fn runs_on(&self, device: &Device) -> bool {
        let (kind, index) = device.backend().id();
        kind == "cuda" && Cuda::get(index).is_ok_and(|cuda| self.hopper.is_none() || cuda.capability == HOPPER)
    }

    /// `[M, K] × [K, N]`, both of the step's dtype and on one card, in f32. Operands that are not row-major are copied first.
    ///
    /// # Panics
    /// If the operands are no such matrices, or N is more than 65535 times the columns of a block's tile.
    #[track_caller]
    pub fn matmul(&self, a: &Tensor, b: &Tensor) -> Tensor {
        ensure!(a.rank() == 2 && b.rank() == 2, Shape, self.name, "needs matrices: {} × {}", a.shape(), b.shape());
        let ([m, k], [l, n]) = ([a.dim(0), a.dim(1)], [b.dim(0), b.dim(1)]);
        ensure!(k == l, Shape, self.name, "inner dimensions differ: {} × {} ({k} ≠ {l})", a.shape(), b.shape());
        let fits = [m, k, n].iter().all(|&extent| extent < 1 << 30) && [k, n].iter().all(|x| x % self.multiple == 0);
        ensure!(
            fits,
            Shape,
            self.name,
            "K and N need to be multiples of {}: {} × {}",
            self.multiple,
            a.shape(),
            b.shape()
        );
        // A grid has no more blocks in its second dimension.
        let widest = 65_535 * self.tile[1];
        ensure!(n <= widest, Shape, self.name, "needs N ≤ {widest}: {} × {}", a.shape(), b.shape());
        let cuda = card(self.name, &[a, b], self.dtype);
        ensure!(self.runs_on(&a.device()), Device, self.name, "needs a Hopper card: {}", a.device());
        let [a, b] = [a, b].map(|x| row_major(x, self.multiple > 1));
        let shape = [m, n].into();
        if k == 0 {
            return cuda.full(&shape, DType::F32, 0.0);
        }
        let c = cuda.empty(&shape, DType::F32);
        if c.numel() > 0 {
            let id = KernelId { file: self.file, define: "", name: "matmul", dtype: None };
            let operands = match self.hopper {
                None => Arguments::default().tensor(&a).tensor(&b),
                Some(_) => {
                    let map = |x: &Tensor| {
                        panels(cuda, x, &[x.dim(1), x.dim(0)], &[x.dim(1) as i64]).expect("a matrix of few gigabytes")
                    };
                    Arguments::default().value(map(&a)).value(map(&b))
                }
            };
            let arguments =
                [m, n, k].iter().fold(operands.tensor(&c), |arguments, &extent| arguments.value(extent as i32));
            let grid = [m.div_ceil(self.tile[0]) as u32, n.div_ceil(self.tile[1]) as u32, 1];
            // SAFETY: row-major matrices of these sizes, of the dtype that the kernel is written for.
            unsafe { cuda.launch(id, grid, self.threads, self.hopper.unwrap_or(0), arguments) };
        }
        c
    }
}
