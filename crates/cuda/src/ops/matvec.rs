//! Products of matrices and vectors, which are as fast as the matrix can be read.

use super::matmul::{After, Output, matrices};
use super::split_k::{Split, add_parts};
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::Layout;
use crate::memory::address;
use crate::programs::KernelId;
use ferrograd_tensor::Tensor;

/// The same as `Sizes` in `matvec.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sizes {
    rows: i64,
    k: i64,
    row_stride: i64,
    k_stride: i64,
    x_stride: i64,
    column_stride: i64,
    batches: i64,
}

/// Rows that fill a card with a warp for each: fewer have a block each, if that is worth the while.
const MANY: usize = 1 << 10;
/// Blocks that fill a card: fewer are cut into parts along K.
const BLOCKS: usize = 1 << 9;
/// Fewest places along K of a part.
const PART: usize = 1 << 7;

/// `c = a · b`, `[…, M, K] × […, K, N]`, where M or N is 1, and what comes after. All are floats, none is empty.
#[track_caller]
pub fn matvec(cuda: &'static Cuda, a: &Tensor, b: &Tensor, after: &After, c: &Tensor) {
    // A single row is the transposed of a single column.
    let column = b.dim(-1) == 1;
    let (matrix, x) = if column { (a.clone(), b.clone()) } else { (b.transpose(-2, -1), a.transpose(-2, -1)) };
    let strides = matrix.layout().strides[matrix.rank() - 2..].to_vec();
    let (rows, k) = (matrix.dim(-2), matrix.dim(-1));
    let sizes = Sizes {
        rows: rows as i64,
        k: k as i64,
        row_stride: strides[0] as i64,
        k_stride: strides[1] as i64,
        x_stride: x.layout().strides[x.rank() - 2] as i64,
        column_stride: !column as i64,
        batches: (c.numel() / rows) as i64,
    };
    let batch = Layout::of([&matrices(&matrix), &matrices(&x)]);
    let operands = Arguments::default().tensor(&matrix).tensor(&x);
    let kernel = |name| KernelId { file: "matvec.cu", define: "", name, dtype: Some(c.dtype()) };

    if strides[0] != 1 || rows == 1 {
        let (name, blocks) = match c.numel() {
            n if n < MANY && k >= BLOCK as usize => ("by_block", n),
            n => ("by_warp", n.div_ceil(BLOCK as usize / 32)),
        };
        let arguments = operands.value(Output::new(c, after, None)).value(sizes).value(batch);
        // SAFETY: sizes and strides are those of the operands, whose dtype is one; what comes after is made for `c`.
        return unsafe { cuda.launch(kernel(name), [blocks as u32, 1, 1], BLOCK, 0, arguments) };
    }

    let length = 16 / c.dtype().size();
    let vectors = address(&matrix) % 16 == 0
        && (0..matrix.rank())
            .filter(|&d| d + 2 != matrix.rank())
            .all(|d| matrix.layout().strides[d] % length as isize == 0)
        && rows % length == 0;
    let (name, each) = if vectors { ("by_lane_vectors", length) } else { ("by_lane", 1) };
    let blocks = rows.div_ceil(32 * each) * sizes.batches as usize;
    let split = Split::of(k, blocks, BLOCKS, PART);
    let parts = split.memory(cuda, c);
    let output = Output::new(c, after, parts.as_ref());
    let arguments = operands.value(output).value(sizes).value(batch).value(split.part as i64);
    // SAFETY: as above; there is a number in `parts` for each part of each result, if there are several.
    unsafe { cuda.launch(kernel(name), [blocks as u32, split.parts as u32, 1], BLOCK, 0, arguments) };
    if parts.is_some() {
        add_parts(cuda, output, split.parts, c);
    }
}
