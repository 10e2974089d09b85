//! Stable sort: see `kernels/sort.cu`.

use super::index::gather;
use super::reduce::split;
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::Layout;
use crate::programs::KernelId;
use ferrograd_tensor::{DType, Tensor, ensure};

/// Pairs that a block sorts in shared memory.
const TILE: usize = 2048;
/// Bytes of a key and a position.
const PAIR: usize = 16;

fn id(name: &'static str, dtype: Option<DType>) -> KernelId {
    KernelId { file: "sort.cu", define: "", name, dtype }
}

/// The first `k` along `dim` of the stable sort: values and indices.
#[track_caller]
pub fn sort(cuda: &'static Cuda, x: &Tensor, k: usize, dim: usize, descending: bool) -> (Tensor, Tensor) {
    let positions = cuda.empty(&x.shape().with(dim, k), DType::I64);
    if positions.numel() > 0 {
        let (lines, n) = (split(x, &[dim]).0, x.dims()[dim]);
        let count = lines.numel();
        let pairs = sorted_pairs(cuda, x, &lines, n, dim, descending);
        let (y_lines, _) = split(&positions, &[dim]);
        let arguments = Arguments::default()
            .tensor(&pairs)
            .tensor(&positions)
            .value(Layout::of([&y_lines]))
            .value(k as i64)
            .value(positions.layout().strides[dim] as i64)
            .value(n.next_power_of_two() as i64);
        // SAFETY: each line has room for at least `k` pairs; the layout and the stride are those of the positions.
        unsafe { cuda.launch(id("sort_positions", None), cuda.grid_for(count * k), BLOCK, 0, arguments) };
    }
    (gather(cuda, x, dim, &positions), positions)
}

/// Keys and positions of each line, sorted, in `room` = the next power of two.
#[track_caller]
fn sorted_pairs(cuda: &'static Cuda, x: &Tensor, lines: &Tensor, n: usize, dim: usize, descending: bool) -> Tensor {
    let room = n.next_power_of_two();
    ensure!(room <= 1 << 31, Shape, "sort", "{n} elements along dimension {dim} of {} are more than 2³¹", x.shape());
    let total = lines.numel() * room;
    let pairs = cuda.empty(&[total * PAIR].into(), DType::U8);
    let flip: u64 = if descending { !0 } else { 0 };
    let arguments = Arguments::default()
        .tensor(x)
        .tensor(&pairs)
        .value(Layout::of([lines]))
        .value(n as i64)
        .value(x.layout().strides[dim] as i64)
        .value(room as i64)
        .value(flip);
    // SAFETY: there is room for every pair of every line.
    unsafe { cuda.launch(id("sort_pairs", Some(x.dtype())), cuda.grid_for(total), BLOCK, 0, arguments) };

    let tile = room.min(TILE);
    let tiles = |length: usize, step: usize, last: usize| {
        let arguments = Arguments::default()
            .tensor(&pairs)
            .value(room as u32)
            .value(tile as u32)
            .value(length as u32)
            .value(step as u32)
            .value(last as u32);
        // SAFETY: the tiles are all of the pairs, `tile` divides `room`.
        unsafe { cuda.launch(id("sort_tiles", None), [(total / tile) as u32, 1, 1], BLOCK, 0, arguments) };
    };
    tiles(2, 1, tile);
    let mut length = 2 * tile;
    while length <= room {
        let mut step = length / 2;
        while step >= tile {
            let arguments = Arguments::default()
                .tensor(&pairs)
                .value(room as u32)
                .value((total / 2) as i64)
                .value(length as u32)
                .value(step as u32);
            // SAFETY: pairs `step` apart lie in one run of `2 · step`, which divides `room`.
            unsafe { cuda.launch(id("sort_step", None), cuda.grid_for(total / 2), BLOCK, 0, arguments) };
            step /= 2;
        }
        tiles(length, step, length);
        length *= 2;
    }
    pairs
}
