//! Products of matrices and vectors, which are as fast as the matrix can be read.

use super::matmul::matrices;
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
    bias_stride: i64,
    batches: i64,
}

/// Rows that fill a card with a warp for each: fewer have a block each, if that is worth the while.
const MANY: usize = 1 << 10;
/// Blocks that fill a card: fewer are cut into parts along K.
const BLOCKS: usize = 1 << 9;
/// Fewest places along K of a part.
const PART: usize = 1 << 7;

/// `c = a · b + bias`, `[…, M, K] × […, K, N]`, where M or N is 1. All are floats, none is empty.
#[track_caller]
pub fn matvec(cuda: &'static Cuda, a: &Tensor, b: &Tensor, bias: Option<&Tensor>, c: &Tensor) {
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
        bias_stride: !column as i64,
        batches: (c.numel() / rows) as i64,
    };
    let with_bias = |arguments: Arguments| match bias {
        Some(bias) => arguments.tensor(bias),
        None => arguments.value(0u64),
    };
    let batch = Layout::of([&matrices(&matrix), &matrices(&x)]);
    let arguments = with_bias(Arguments::default().tensor(&matrix).tensor(&x)).tensor(c).value(sizes).value(batch);
    let kernel = |name| KernelId { file: "matvec.cu", define: "", name, dtype: Some(c.dtype()) };

    if strides[0] != 1 || rows == 1 {
        let (name, blocks) = match c.numel() {
            n if n < MANY && k >= BLOCK as usize => ("by_block", n),
            n => ("by_warp", n.div_ceil(BLOCK as usize / 32)),
        };
        // SAFETY: sizes and strides are those of the operands, whose dtype is one.
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
    let part = k.div_ceil((BLOCKS / blocks).min(k / PART).max(1));
    let count = k.div_ceil(part);
    let parts = cuda.empty(&[if count > 1 { count * c.numel() } else { 0 }].into(), c.dtype().accumulator());
    let arguments = arguments.value(address(&parts)).value(part as i64);
    // SAFETY: as above; there is a number in `parts` for each part of each result, if there are several.
    unsafe { cuda.launch(kernel(name), [blocks as u32, count as u32, 1], BLOCK, 0, arguments) };
    if count > 1 {
        let arguments = with_bias(Arguments::default().tensor(&parts)).tensor(c).value(sizes).value(count as i64);
        let blocks = c.numel().div_ceil(BLOCK as usize) as u32;
        // SAFETY: these are the parts that were just made.
        unsafe { cuda.launch(kernel("add_parts"), [blocks, 1, 1], BLOCK, 0, arguments) };
    }
}
