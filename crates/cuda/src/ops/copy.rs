//! Copies between any strides.

use super::of_size;
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::{Layout, Plane};
use crate::memory::address;
use crate::programs::KernelId;
use ferrograd_tensor::Tensor;

/// See [`Backend::copy`](ferrograd_tensor::backend::Backend::copy).
#[track_caller]
pub fn copy(cuda: &'static Cuda, x: &Tensor) -> Tensor {
    let y = cuda.empty(x.shape(), x.dtype());
    copy_into(cuda, x, &y);
    y
}

/// `to = from`, of one shape and dtype, any strides.
#[track_caller]
pub fn copy_into(cuda: &'static Cuda, from: &Tensor, to: &Tensor) {
    if from.numel() == 0 {
        return;
    }
    let layout = Layout::of([from, to]);
    match layout.transposed() {
        Some((plane, batch)) => transpose(cuda, from, to, plane, batch),
        None => copy_runs(cuda, from, to, layout),
    }
}

#[track_caller]
fn transpose(cuda: &'static Cuda, from: &Tensor, to: &Tensor, plane: Plane, batch: Layout<2>) {
    let dtype = Some(of_size(from.dtype().size()));
    let id = KernelId { file: "copy.cu", define: "", name: "transpose", dtype };
    // A block has a quarter of a thread for each number of its square.
    let grid = cuda.grid_for((plane.squares() * batch.numel()).saturating_mul(BLOCK as usize));
    let arguments = Arguments::default().tensor(from).tensor(to).value(plane).value(batch);
    // SAFETY: elements of one size, of which the kernel reads and writes those that the operands' layouts name.
    unsafe { cuda.launch(id, grid, BLOCK, 0, arguments) };
}

/// In the widest chunks that there are whole runs of.
#[track_caller]
fn copy_runs(cuda: &'static Cuda, from: &Tensor, to: &Tensor, layout: Layout<2>) {
    let (size, places) = (from.dtype().size(), address(from) | address(to));
    let wider = |&bytes: &usize| bytes > size && places.is_multiple_of(bytes as u64);
    let chunks =
        [16, 8, 4, 2].into_iter().filter(wider).find_map(|bytes| Some((bytes, layout.in_chunks(bytes / size)?)));
    let (bytes, layout) = chunks.unwrap_or((size, layout));
    let (name, dtype) = if bytes == 16 { ("copy_chunks", None) } else { ("copy", Some(of_size(bytes))) };
    let id = KernelId { file: "copy.cu", define: "", name, dtype };
    let arguments = Arguments::default().tensor(from).tensor(to).value(layout);
    // SAFETY: as above.
    unsafe { cuda.launch(id, cuda.grid_for(layout.numel().div_ceil(16 / bytes)), BLOCK, 0, arguments) };
}
