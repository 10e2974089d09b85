//! Matrix products.

use super::elementwise::region;
use crate::cuda::Cuda;
use crate::launch::Arguments;
use crate::layout::Layout;
use crate::programs::KernelId;
use ferrograd_tensor::{Shape, Tensor};

/// Rows and columns of a block's tile, and its threads (`kernels/matmul.cu`).
const TILE: usize = 64;
const THREADS: u32 = 256;

/// The same as `Shape` in `matmul.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sizes {
    m: i64,
    n: i64,
    k: i64,
    a: [i64; 2],
    b: [i64; 2],
    batches: i64,
}

/// `[…, M, K] × […, K, N]`, plus a bias `[N]` if there is one; see [`Backend`](ferrograd_tensor::backend::Backend).
#[track_caller]
pub fn matmul(cuda: &'static Cuda, a: &Tensor, b: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let r = a.rank();
    let (m, k, n) = (a.dims()[r - 2], a.dims()[r - 1], b.dims()[r - 1]);
    let shape: Shape = a.dims()[..r - 1].iter().copied().chain([n]).collect();
    let c = cuda.empty(&shape, a.dtype());
    if c.numel() == 0 {
        return c;
    }
    let strides = |x: &Tensor| [r - 2, r - 1].map(|d| x.layout().strides[d] as i64);
    let batches = c.numel() / (m * n);
    let sizes = Sizes { m: m as i64, n: n as i64, k: k as i64, a: strides(a), b: strides(b), batches: batches as i64 };
    let bias = bias.map(Tensor::contiguous);
    let leading = |x: &Tensor| {
        let mut layout = x.layout().clone();
        layout.shape = a.dims()[..r - 2].iter().copied().chain([1, 1]).collect();
        region(x, &layout)
    };
    // Without terms there is nothing that could be read.
    let batch = if k == 0 {
        Layout::of([&c.narrow(-1, 0, 1), &c.narrow(-1, 0, 1)])
    } else {
        Layout::of([&leading(a), &leading(b)])
    };
    let mut arguments = Arguments::default().tensor(a).tensor(b);
    arguments = match &bias {
        Some(bias) => arguments.tensor(bias),
        None => arguments.value(0u64),
    };
    let arguments = arguments.tensor(&c).value(sizes).value(batch);
    let grid = [m.div_ceil(TILE) as u32, n.div_ceil(TILE) as u32, batches.min(65535) as u32];
    let id = KernelId { file: "matmul.cu", define: "", name: "matmul", dtype: Some(a.dtype()) };
    // SAFETY: sizes and strides are those of the operands, whose dtype is one.
    unsafe { cuda.launch(id, grid, THREADS, 0, arguments) };
    c
}
