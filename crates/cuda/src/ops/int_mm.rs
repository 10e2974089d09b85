//! Products of 8-bit integers on tensor cores (`kernels/int_mm.cu`).

use super::matmul::{After, LARGE, Product, SMALL, STAGES, slice, tile};
use crate::cuda::Cuda;
use crate::launch::Arguments;
use crate::memory::address;
use crate::programs::{KernelId, Program};
use ferrograd_tensor::{DType, Tensor};

/// What is compiled ahead of time: for operands that lie anyhow, and for those that are aligned.
pub const PROGRAMS: [Program; 2] = [("int_mm.cu", "ALIGNED=0"), ("int_mm.cu", "ALIGNED=1")];

/// See [`Backend::int_mm`](ferrograd_tensor::backend::Backend::int_mm).
#[track_caller]
pub fn int_mm(cuda: &'static Cuda, a: &Tensor, b: &Tensor) -> Option<Tensor> {
    let [m, k, n] = [a.dim(0), a.dim(1), b.dim(1)];
    if !(1..1 << 30).contains(&k) {
        return None;
    }
    let c = cuda.empty(&[m, n].into(), DType::I32);
    if c.numel() == 0 {
        return Some(c);
    }
    let [a, b] = [a.clone(), b.t()].map(along_k);
    let aligned = [&a, &b].iter().all(|x| address(x) % 16 == 0 && pitch(x) % 16 == 0) && k % 16 == 0;
    let b = b.t();
    let product = Product::new(cuda, &a, &b, After::default(), &c);
    let (extents, multiprocessors) = (product.extents(), cuda.multiprocessors as usize);
    let tile = tile(SMALL, extents, multiprocessors);
    let split = tile.split(extents, multiprocessors);
    let name = if tile == LARGE { "int_mm_large" } else { "int_mm_small" };
    let (file, define) = PROGRAMS[aligned as usize];
    let id = KernelId { file, define, name, dtype: Some(DType::I8) };
    let grid = [tile.count(m, n, 1) as u32, split.parts as u32, 1];
    let shared = STAGES * (slice(tile.rows, true, 1) + slice(tile.columns, true, 1));
    product.in_parts(split, |output, sizes| {
        let arguments = Arguments::default().tensor(&a).tensor(&b).value(output.sums()).value(sizes);
        // SAFETY: both operands lie along K, at the sizes' pitches, aligned if the program wants them so; `c`, and each of the parts that
        // there are if K is cut, has room for all sums.
        unsafe { cuda.launch(id, grid, tile.threads, shared as u32, arguments) };
    });
    Some(c)
}

/// `[…, K]` whose rows are runs of memory: the matrix itself, or a copy.
#[track_caller]
fn along_k(x: Tensor) -> Tensor {
    if x.layout().strides[1] == 1 || x.dim(1) == 1 { x } else { x.contiguous() }
}

/// From row to row.
fn pitch(x: &Tensor) -> i64 {
    x.layout().strides[0] as i64
}
