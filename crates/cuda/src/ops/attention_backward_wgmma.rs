//! The gradients of attention on Hopper's tensor cores (`kernels/attention_backward_wgmma.cu`): the half types, rows that the copy
//! engine can move.

use super::attention::Sizes;
use super::attention_wgmma::rows;
use super::elementwise::full;
use super::layer_norm::optional;
use super::matmul_wgmma::HOPPER;
use crate::cuda::Cuda;
use crate::launch::Arguments;
use crate::memory::address;
use crate::programs::{KernelId, Program};
use cudarc::driver::sys;
use ferrograd_tensor::{DType, Tensor};

/// A program, and what it was told; see the kernel.
struct Tile {
    dtype: DType,
    head: usize,
    define: &'static str,
}

/// Keys of a block, 64 for each warpgroup that multiplies, and its threads; one more warpgroup has its operands brought.
const KEYS: usize = 128;
const CONSUMERS: usize = KEYS / 64;
const MULTIPLYING: u32 = 128 * CONSUMERS as u32;
const THREADS: u32 = MULTIPLYING + 128;
/// Steps whose operands are there or on their way.
const STAGES: usize = 2;
/// Of barriers and the block's work, in bytes.
const BOOKKEEPING: usize = 96;
/// A square of 64 numbers.
const PANEL: usize = 64 * 64;

impl Tile {
    /// Queries of a step: as many as make a panel of dQ for each consumer.
    fn queries(&self) -> usize {
        KEYS * 64 / self.head
    }
    /// `Memory` in the kernel: K and V; the ring of Q and dO; dSᵀ, twice; dQ; statistics; seven barriers and the block's
    /// work.
    fn shared(&self) -> usize {
        let rows = 2 * KEYS + 2 * STAGES * self.queries();
        let halves = rows * self.head + 2 * self.queries() * KEYS;
        halves * size_of::<u16>() + (CONSUMERS * PANEL + 2 * STAGES * self.queries()) * size_of::<f32>() + BOOKKEEPING
    }
}

macro_rules! tiles {
    ($($dtype:ident $name:literal: $($head:literal),*;)*) => {
        [$($(Tile {
            dtype: DType::$dtype,
            head: $head,
            define: concat!("TYPE=", $name, " HEAD=", $head, " WARPS=8 FRAGMENTS=1 COLUMNS=64"),
        }),*),*]
    };
}

/// For each type, by growing width.
const TILES: [Tile; 4] = tiles! {
    BF16 "bf16": 64, 128;
    F16 "f16": 64, 128;
};

/// What is compiled ahead of time.
pub fn programs() -> impl Iterator<Item = Program> {
    TILES.iter().map(|tile| ("attention_backward_wgmma.cu", tile.define))
}

/// The same as `Ledger` in the kernel.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ledger {
    statistics: u64,
    sums: u64,
    turns: u64,
    begun: u64,
}

/// Launches the backward pass of `[q, k, v, d_out]` into `[dq, dk, dv]`, and into the mask's gradient if it is wanted, if it is one
/// for Hopper, and says whether it was. The operands' rows are runs that begin at multiples of 16 bytes; `statistics` makes them, for
/// so many places of each head.
#[track_caller]
pub fn attention_backward_wgmma(
    cuda: &'static Cuda,
    operands: [&Tensor; 4],
    gradients: [&Tensor; 3],
    d_mask: Option<&Tensor>,
    (sizes, scale): (&Sizes, f64),
    statistics: impl FnOnce(usize) -> Tensor,
) -> bool {
    let [q, k, v, _] = operands;
    let widest = q.dim(3).max(v.dim(3));
    // Of narrower rows more than half of each tile would be zeros.
    let tile = TILES.iter().find(|tile| tile.dtype == q.dtype() && widest > 32 && tile.head >= widest);
    let there = q.numel() > 0 && k.numel() > 0;
    let Some(tile) = tile.filter(|_| cuda.capability == HOPPER && there) else { return false };
    let maps = || operands.iter().chain(&gradients).map(|x| rows(cuda, x)).collect::<Option<Vec<sys::CUtensorMap>>>();
    let Some(&[q_map, k_map, v_map, d_out_map, dq_map, dk_map, dv_map]) = maps().as_deref() else { return false };
    let ([b, h, tq, _], [_, key_heads, tk, _]) = (q.dims_of("attention"), k.dims_of("attention"));
    let steps = tq.div_ceil(tile.queries());
    let statistics = statistics(steps * tile.queries());
    let sums = cuda.empty(&[b * h * steps, tile.queries(), tile.head].into(), DType::F32);
    let turns = full(cuda, &[b * h * steps + 1].into(), DType::I32, 0.0);
    let begun = address(&turns) + (b * h * steps * DType::I32.size()) as u64;
    let ledger = Ledger { statistics: address(&statistics), sums: address(&sums), turns: address(&turns), begun };
    let id = |name| KernelId { file: "attention_backward_wgmma.cu", define: tile.define, name, dtype: None };
    let maps = [q_map, k_map, v_map, d_out_map, dk_map, dv_map];
    let arguments = maps.into_iter().fold(Arguments::default(), Arguments::value);
    let arguments = optional(arguments.value(ledger), d_mask).value(scale).value(*sizes);
    let blocks = (b * key_heads * tk.div_ceil(KEYS)) as u32;
    // SAFETY: the maps are those of rows of the program's type that are no wider than it takes; statistics, sums and a turn for each
    // step of each head.
    unsafe { cuda.launch(id("attention_backward"), [blocks, 1, 1], THREADS, tile.shared() as u32, arguments) };
    let arguments = Arguments::default().value(dq_map).tensor(&sums).tensor(&turns).value(scale).value(*sizes);
    let (blocks, shared) = ((b * h * steps) as u32, CONSUMERS * PANEL * size_of::<u16>());
    // SAFETY: these are the sums that were just made, and rows as before.
    unsafe { cuda.launch(id("attention_backward_queries"), [blocks, 1, 1], MULTIPLYING, shared as u32, arguments) };
    true
}

#[cfg(test)]
mod tests {
    use super::TILES;

    #[test]
    fn a_block_has_227_kib_of_shared_memory() {
        assert!(TILES.iter().all(|tile| tile.shared() <= 227 << 10));
    }
}
