//! Attention on Hopper's tensor cores (`kernels/attention_wgmma.cu`): the half types, rows that the copy engine can move.

use super::attention::Sizes;
use super::matmul_wgmma::{HOPPER, panels};
use crate::cuda::Cuda;
use crate::launch::Arguments;
use crate::programs::{KernelId, Program};
use cudarc::driver::sys;
use ferrograd_tensor::{DType, Tensor};

/// A program, and what it was told; see the kernel.
struct Tile {
    dtype: DType,
    head: usize,
    warps: usize,
    /// Keys that are walked over at a time.
    columns: usize,
    stages: usize,
    /// Does anything come between products and weights but a positive factor?
    masked: bool,
    define: &'static str,
}

/// Threads of the producer.
const PRODUCER: u32 = 128;

impl Tile {
    /// Queries of a block.
    fn rows(&self) -> usize {
        16 * self.warps
    }
    fn threads(&self) -> u32 {
        32 * self.warps as u32 + PRODUCER
    }
    /// `Memory` in the kernel: queries, the ring, two barriers for each of its places and one more.
    fn shared(&self) -> usize {
        (self.rows() + self.stages * self.columns) * self.head * size_of::<u16>()
            + (2 * self.stages + 1) * size_of::<u64>()
    }
}

macro_rules! tiles {
    ($($dtype:ident $name:literal: $($masked:literal $head:literal $warps:literal $columns:literal $stages:literal),*;)*) => {
        [$($(Tile {
            dtype: DType::$dtype,
            head: $head,
            warps: $warps,
            columns: $columns,
            stages: $stages,
            masked: $masked == 1,
            define: concat!(
                "TYPE=", $name, " MASKED=", $masked, " HEAD=", $head, " WARPS=", $warps, " FRAGMENTS=1 COLUMNS=", $columns,
                " STAGES=", $stages
            ),
        }),*),*]
    };
}

/// For each type, without masks and with them, by growing width: the consumers' warps, as many as registers allow; the columns, half
/// as many where rows are wide or a mask's numbers take registers too; and the places of the ring.
const TILES: [Tile; 10] = tiles! {
    BF16 "bf16": 0 64 12 128 6, 0 128 8 128 4, 0 256 8 64 4, 1 64 12 64 6, 1 128 8 64 6;
    F16 "f16": 0 64 12 128 6, 0 128 8 128 4, 0 256 8 64 4, 1 64 12 64 6, 1 128 8 64 6;
};

/// What is compiled ahead of time.
pub fn programs() -> impl Iterator<Item = Program> {
    TILES.iter().map(|tile| ("attention_wgmma.cu", tile.define))
}

/// Launches the forward pass if it is one for Hopper, and says whether it was. The operands' rows are runs that begin at
/// multiples of 16 bytes, and there are some of each.
#[track_caller]
pub fn attention_wgmma(cuda: &'static Cuda, operands: [&Tensor; 4], lse: &Tensor, sizes: &Sizes) -> bool {
    let [q, k, v, _] = operands;
    let widest = q.dim(3).max(v.dim(3));
    // Of narrower rows more than half of each tile would be zeros.
    let fits = |tile: &&Tile| {
        tile.dtype == q.dtype() && tile.masked == sizes.is_masked() && widest > 32 && tile.head >= widest
    };
    let tile = TILES.iter().find(fits).filter(|_| cuda.capability == HOPPER && k.dim(2) > 0);
    let Some(tile) = tile else { return false };
    let [Some(q), Some(k), Some(v), Some(out)] = operands.map(|x| rows(cuda, x)) else { return false };
    let arguments = [q, k, v, out].into_iter().fold(Arguments::default(), Arguments::value);
    let arguments = arguments.tensor(lse).value(*sizes);
    let [b, h, tq, _] = operands[0].dims_of("attention");
    let blocks = (b * h * tq.div_ceil(tile.rows())) as u32;
    let id = KernelId { file: "attention_wgmma.cu", define: tile.define, name: "attention", dtype: None };
    // SAFETY: the maps are those of rows of the program's type that are no wider than it takes; a logsumexp for each query.
    unsafe { cuda.launch(id, [blocks, 1, 1], tile.threads(), tile.shared() as u32, arguments) };
    true
}

/// The map of `[B, H, T, D]` for the copy engine, which knows it as `[D, T, H, B]`; none if it cannot walk that way.
#[track_caller]
pub fn rows(cuda: &Cuda, x: &Tensor) -> Option<sys::CUtensorMap> {
    let extents = [3, 2, 1, 0].map(|d| x.dims()[d]);
    let width = extents[0] as i64;
    // Where there is one of something nobody asks for the stride: it only has to be valid.
    let strides = [2, 1, 0].map(|d| if x.dims()[d] == 1 { width } else { x.layout().strides[d] as i64 });
    // Neither backwards nor into the same row.
    let walks = strides.iter().all(|&stride| stride >= width);
    if walks { panels(cuda, x, &extents, &strides) } else { None }
}

#[cfg(test)]
mod tests {
    use super::TILES;

    #[test]
    fn a_block_has_227_kib_of_shared_memory() {
        assert!(TILES.iter().all(|tile| tile.shared() <= 227 << 10));
    }
}
