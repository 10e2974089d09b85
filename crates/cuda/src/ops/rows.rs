//! Rows along a dimension, and which of the kernels in `kernels/rows.cuh` takes them.

use super::reduce::split;
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::Layout;
use crate::memory::address;
use crate::programs::{KernelId, Program};
use ferrograd_tensor::{Tensor, ensure};

/// Bytes of each operand that a thread keeps in registers.
const KEPT: usize = 64;
const WARP: usize = 32;

/// The same as `Rows<N>` in `rows.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Described<const N: usize> {
    starts: Layout<N>,
    n: i64,
    strides: [i64; N],
    share: f64,
}

/// Rows of `N` operands of one shape and dtype.
pub struct Rows<const N: usize> {
    pub described: Described<N>,
    count: usize,
    /// Bytes of an element.
    size: usize,
    /// Can they be moved 16 bytes at a time?
    vectors: bool,
    /// Do rows lie side by side, element next to element?
    side_by_side: bool,
}

impl<const N: usize> Rows<N> {
    /// The operands' rows along `dim`. There is an element, at least.
    #[track_caller]
    pub fn along(dim: usize, operands: [&Tensor; N]) -> Self {
        let first = operands[0];
        let (n, size) = (first.dims()[dim], first.dtype().size());
        let count = first.numel() / n;
        ensure!(
            count < 1 << 32,
            Shape,
            "cuda",
            "{} has {count} rows along dimension {dim}, 2³² or more",
            first.shape()
        );
        let starts = operands.map(|x| split(x, &[dim]).0);
        let strides = operands.map(|x| if n > 1 { x.layout().strides[dim] as i64 } else { 1 });
        let aligned = |x: &Tensor, start: &Tensor| {
            let mut strides = start.dims().iter().zip(&start.layout().strides).filter(|&(&extent, _)| extent > 1);
            address(x).is_multiple_of(16) && strides.all(|(_, &s)| (s.unsigned_abs() * size).is_multiple_of(16))
        };
        let across = starts[0].dims().iter().zip(&starts[0].layout().strides).filter(|&(&extent, _)| extent > 1);
        let nearest = across.map(|(_, s)| s.unsigned_abs() as u64).min().unwrap_or(u64::MAX);
        Rows {
            count,
            vectors: strides.iter().all(|&s| s == 1)
                && (n * size).is_multiple_of(16)
                && operands.iter().zip(&starts).all(|(x, start)| aligned(x, start)),
            side_by_side: nearest < strides[0].unsigned_abs() && count >= WARP / 2,
            described: Described { starts: Layout::of(starts.each_ref()), n: n as i64, strides, share: 1.0 / n as f64 },
            size,
        }
    }

    /// Elements that a thread keeps: only in vectors do those of 2 bytes take less than 4.
    fn kept(&self) -> usize {
        KEPT / if self.vectors { self.size } else { self.size.max(4) }
    }

    /// The kernel's name, the rows that a block takes, and its threads.
    fn kernel(&self) -> (&'static str, usize, u32) {
        let n = self.described.n as usize;
        let kept = self.kept();
        // `MOST` in `rows.cuh`.
        let most = match (self.vectors, self.size) {
            (false, _) => 384,
            (true, 8) => 512,
            (true, _) => 1024,
        };
        let (by_warp, by_block) = (n <= kept * WARP, n <= kept * most);
        let by_lane = n <= KEPT / self.size.max(4) * BLOCK as usize / WARP;
        let fitting = n.div_ceil(kept).next_multiple_of(WARP) as u32;
        match (self.side_by_side, self.vectors) {
            (true, _) if by_lane => ("by_lane", WARP, BLOCK),
            (true, _) => ("by_lane_again", WARP, BLOCK),
            (_, false) if by_warp => ("by_warp", BLOCK as usize / WARP, BLOCK),
            (_, true) if by_warp => ("by_warp_in_vectors", BLOCK as usize / WARP, BLOCK),
            (_, false) if by_block => ("by_block", 1, fitting),
            (_, true) if by_block => ("by_block_in_vectors", 1, fitting),
            (_, false) => ("by_block_again", 1, 512),
            (_, true) => ("by_block_again_in_vectors", 1, 512),
        }
    }

    /// The kernel that goes from row to row and adds up columns, its blocks and their threads. How many blocks there are
    /// depends on the shape alone: enough to fill a card, but each with rows enough that its sums cost little.
    pub fn accumulating(&self) -> (&'static str, usize, u32) {
        let n = self.described.n as usize;
        // `KEPT` in `norm_backward.cuh`.
        let kept = self.kept() / 2;
        let fitting = n.div_ceil(kept).next_multiple_of(WARP) as u32;
        let (name, rows, most, block) = match self.vectors {
            false if n <= kept * WARP => ("by_warp", 32, 1056, BLOCK),
            true if n <= kept * WARP => ("by_warp_in_vectors", 32, 1056, BLOCK),
            false if n <= kept * 512 => ("by_block", 16, 1056, fitting),
            true if n <= kept * 512 => ("by_block_in_vectors", 16, 1056, fitting),
            false => ("by_block_again", 16, 264, 512),
            true => ("by_block_again_in_vectors", 16, 264, 512),
        };
        (name, self.count.div_ceil(rows).min(most), block)
    }
}

/// Launches a program of `kernels/rows.cuh` on the rows along `dim` of operands of one shape and dtype. The arguments are the
/// operands, the rows, and `rest`.
///
/// # Safety
/// The program's kernels take so many operands of this dtype, and `rest`.
#[track_caller]
pub unsafe fn launch_rows<const N: usize>(
    cuda: &Cuda,
    (file, define): Program,
    dim: usize,
    operands: [&Tensor; N],
    rest: impl FnOnce(Arguments) -> Arguments,
) {
    if operands[0].numel() == 0 {
        return;
    }
    let rows = Rows::along(dim, operands);
    let (name, of_block, block) = rows.kernel();
    let id = KernelId { file, define, name, dtype: Some(operands[0].dtype()) };
    let arguments = operands.iter().fold(Arguments::default(), |a, x| a.tensor(x)).value(rows.described);
    // SAFETY: the caller's promise; the rows were made of the operands themselves.
    unsafe { cuda.launch(id, [rows.count.div_ceil(of_block) as u32, 1, 1], block, 0, rest(arguments)) };
}
