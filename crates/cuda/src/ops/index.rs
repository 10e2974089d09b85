//! Reading and adding by index.

use super::copy::copy;
use super::elementwise::{cast, is_nothing, region};
use super::moved_as;
use super::reduce::{reduce, split};
use super::sort::sort;
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::Layout;
use crate::programs::KernelId;
use ferrograd_tensor::backend::Reduce;
use ferrograd_tensor::{DType, Tensor};

/// `index` (1-D) as one of x's extents but along `dim`: the same for all other dimensions.
fn spread(x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
    let shape: Vec<usize> = (0..x.rank()).map(|d| if d == dim { index.numel() } else { 1 }).collect();
    index.reshape(&shape[..]).expand(x.shape().with(dim, index.numel()))
}

/// See [`Backend::gather`](ferrograd_tensor::backend::Backend::gather).
#[track_caller]
pub fn gather(cuda: &'static Cuda, x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
    let y = cuda.empty(index.shape(), x.dtype());
    if is_nothing(&y) {
        return y;
    }
    // At index 0 along the dimension, wherever else.
    let mut there = x.layout().clone();
    there.shape = index.shape().clone();
    there.strides[dim] = 0;
    let there = region(x, &there);
    let arguments = Arguments::default()
        .tensor(index)
        .tensor(x)
        .tensor(&y)
        .value(Layout::of([index, &there, &y]))
        .value(x.dims()[dim] as i64)
        .value(x.layout().strides[dim] as i64);
    let id = KernelId { file: "gather.cu", define: "", name: "gather", dtype: Some(moved_as(x.dtype())) };
    // SAFETY: the kernel keeps indices in range; layouts and the stride are those of the operands.
    unsafe { cuda.launch(id, cuda.grid_for(y.numel()), BLOCK, 0, arguments) };
    y
}

/// See [`Backend::index_select`](ferrograd_tensor::backend::Backend::index_select).
#[track_caller]
pub fn index_select(cuda: &'static Cuda, x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
    gather(cuda, x, dim, &spread(x, dim, index))
}

/// See [`Backend::scatter_add`](ferrograd_tensor::backend::Backend::scatter_add).
#[track_caller]
pub fn scatter_add(cuda: &'static Cuda, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
    if x.dtype().is_half() {
        // Added up in f32 and rounded once.
        let sum = scatter_add(cuda, &cast(cuda, x, DType::F32), dim, index, &cast(cuda, src, DType::F32));
        return cast(cuda, &sum, x.dtype());
    }
    let y = copy(cuda, x);
    if is_nothing(src) {
        return y;
    }
    let [index_lines, src_lines, y_lines] = [index, src, &y].map(|x| split(x, &[dim]).0);
    let (lines, n) = (y_lines.numel(), y.dims()[dim]);
    let stride = |x: &Tensor| x.layout().strides[dim] as i64;
    let arguments = Arguments::default()
        .tensor(index)
        .tensor(src)
        .tensor(&y)
        .value(Layout::of([&index_lines, &src_lines, &y_lines]))
        .value(src.dims()[dim] as i64)
        .value(n as i64)
        .value(stride(index))
        .value(stride(src))
        .value(stride(&y));
    // Few lines are cut into ranges of their destinations.
    let ranges = (1 << 16) / lines.clamp(1, 1 << 16);
    let id = KernelId { file: "gather.cu", define: "", name: "scatter_add", dtype: Some(x.dtype()) };
    let grid = [lines.div_ceil(128) as u32, ranges.clamp(1, n.min(256)) as u32, 1];
    // SAFETY: the kernel passes over indices out of range; layouts and strides are those of the operands, `y` is ours.
    unsafe { cuda.launch(id, grid, 128, 0, arguments) };
    y
}

/// Sources up to which each destination rather looks through all of them than that they are sorted.
const FEW: usize = 64;

/// See [`Backend::index_add`](ferrograd_tensor::backend::Backend::index_add).
#[track_caller]
pub fn index_add(cuda: &'static Cuda, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
    let m = index.numel();
    if m <= FEW || is_nothing(src) {
        return scatter_add(cuda, x, dim, &spread(x, dim, index), src);
    }
    let y = copy(cuda, x);
    let (sorted, from) = sort(cuda, index, m, 0, false);
    let [src_lines, y_lines] = [src, &y].map(|x| split(x, &[dim]).0);
    // As many pieces as there can be block rows, at most.
    let piece = m.div_ceil(u16::MAX.into()).max(32);
    let arguments = Arguments::default()
        .tensor(&sorted)
        .tensor(&from)
        .tensor(src)
        .tensor(&y)
        .value(Layout::of([&src_lines, &y_lines]))
        .value(m as i64)
        .value(y.dims()[dim] as i64)
        .value(piece as i64)
        .value(src.layout().strides[dim] as i64)
        .value(y.layout().strides[dim] as i64);
    let id = KernelId { file: "index_add.cu", define: "", name: "index_add", dtype: Some(x.dtype()) };
    let grid = [y_lines.numel().div_ceil(128) as u32, m.div_ceil(piece) as u32, 1];
    // SAFETY: the kernel passes over indices out of range; layouts and strides are those of the operands, `y` is ours.
    unsafe { cuda.launch(id, grid, 128, 0, arguments) };
    y
}

/// See [`Backend::index_range`](ferrograd_tensor::backend::Backend::index_range).
#[track_caller]
pub fn index_range(cuda: &'static Cuda, index: &Tensor) -> (i64, i64) {
    let dims: Vec<usize> = (0..index.rank()).collect();
    let [low, high] = [Reduce::Min, Reduce::Max].map(|op| reduce(cuda, op, index, &dims).reshape([1usize]));
    let both = Tensor::cat(&[&low, &high], 0).to_vec::<i64>();
    (both[0], both[1])
}
