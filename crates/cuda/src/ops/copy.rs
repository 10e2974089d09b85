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
    match Layout::of([from, to]).transposed() {
        Some((plane, batch)) => transpose(cuda, from, to, plane, batch),
        None => {
            let id = KernelId { file: "copy.cu", define: "", name: "copy", dtype: Some(moved_as(from.dtype())) };
            // SAFETY: elements of one size; the kernel only moves them.
            unsafe { cuda.map(id, [from, to], |a| a) };
        }
    }
}

#[track_caller]
fn transpose(cuda: &'static Cuda, from: &Tensor, to: &Tensor, plane: Plane, batch: Layout<2>) {
    let id = KernelId { file: "copy.cu", define: "", name: "transpose", dtype: Some(moved_as(from.dtype())) };
    // A block has a quarter of a thread for each number of its square.
    let grid = cuda.grid_for((plane.squares() * batch.numel()).saturating_mul(BLOCK as usize));
    let arguments = Arguments::default().tensor(from).tensor(to).value(plane).value(batch);
    // SAFETY: elements of one size, of which the kernel reads and writes those that the operands' layouts name.
    unsafe { cuda.launch(id, grid, BLOCK, 0, arguments) };
}
