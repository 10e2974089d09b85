//! Copies between any strides.

use super::moved_as;
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::{Layout, Plane};
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
    // As in the kernel.
    let side = if from.dtype().size() < 4 { 64 } else { 32 };
    match Layout::of([from, to]).transposed(side) {
        Some((plane, batch)) => transpose(cuda, [from, to], plane, batch, plane.squares(side) * batch.numel()),
        None => {
            let id = KernelId { file: "copy.cu", define: "", name: "copy", dtype: Some(moved_as(from.dtype())) };
            // SAFETY: elements of one size; the kernel only moves them.
            unsafe { cuda.map(id, [from, to], |a| a) };
        }
    }
}

#[track_caller]
fn transpose(cuda: &'static Cuda, [from, to]: [&Tensor; 2], plane: Plane, batch: Layout<2>, squares: usize) {
    let id = KernelId { file: "copy.cu", define: "", name: "transpose", dtype: Some(moved_as(from.dtype())) };
    let grid = cuda.grid_for(squares * BLOCK as usize);
    let arguments = Arguments::default().tensor(from).tensor(to).value(plane).value(batch);
    // SAFETY: elements of one size, of which the kernel reads and writes those that the operands' layouts name.
    unsafe { cuda.launch(id, grid, BLOCK, 0, arguments) };
}
