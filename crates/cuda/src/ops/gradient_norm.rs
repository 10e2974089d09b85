//! The norm of all gradients, and gradients times a number.

use super::tensors::{entry, tables};
use crate::cuda::Cuda;
use crate::launch::Arguments;
use crate::memory::address;
use crate::programs::KernelId;
use ferrograd_tensor::{DType, Shape, Tensor};

/// Threads of the block that adds the sums up.
const ADDING: u32 = 1024;

/// See [`Backend::norm_of_all`](ferrograd_tensor::backend::Backend::norm_of_all). None for f64, whose squares overflow.
#[track_caller]
pub fn norm_of_all(cuda: &'static Cuda, xs: &[&Tensor]) -> Option<Tensor> {
    let dtype = xs.first()?.dtype();
    if dtype == DType::F64 {
        return None;
    }
    let tables = tables(xs.iter().map(|x| entry([*x])));
    let blocks = tables.iter().map(|t| t.blocks()).sum::<usize>();
    let sums = cuda.empty(&Shape::from([blocks]), DType::F64);
    let id = KernelId { file: "gradient_norm.cu", define: "", name: "sums_of_squares", dtype: Some(dtype) };
    let mut place = address(&sums);
    for table in tables {
        // SAFETY: each block reads its chunk, and writes its sum: there is room for those of all tables.
        unsafe { table.launch(cuda, id, |a| a.value(place)) };
        place += (table.blocks() * size_of::<f64>()) as u64;
    }
    let norm = cuda.empty(&Shape::from([]), DType::F64);
    let id = KernelId { name: "root_of_sum", dtype: None, ..id };
    let arguments = Arguments::default().tensor(&sums).value(blocks as i64).tensor(&norm);
    // SAFETY: there are as many sums.
    unsafe { cuda.launch(id, [1, 1, 1], ADDING, 0, arguments) };
    Some(norm)
}

/// See [`Backend::scale_all`](ferrograd_tensor::backend::Backend::scale_all).
#[track_caller]
pub fn scale_all(cuda: &'static Cuda, xs: &mut [&mut Tensor], factor: &Tensor) {
    let Some(dtype) = xs.first().map(|x| x.dtype()) else { return };
    let id = KernelId { file: "gradient_norm.cu", define: "", name: "scale", dtype: Some(dtype) };
    for table in tables(xs.iter().map(|x| entry([&**x]))) {
        // SAFETY: the tensors are of this dtype and not shared; the factor is an f64.
        unsafe { table.launch(cuda, id, |a| a.tensor(factor)) };
    }
}
