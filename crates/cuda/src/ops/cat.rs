//! Joining tensors.

use super::copy::copy_into;
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::memory::address;
use crate::programs::KernelId;
use ferrograd_tensor::Tensor;

/// Most operands of one launch.
const OPERANDS: usize = 16;

/// The same as in `cat.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Joined {
    from: [u64; OPERANDS],
    starts: [i64; OPERANDS + 1],
    count: i64,
    rows: i64,
    row: i64,
}

/// See [`Backend::cat`](ferrograd_tensor::backend::Backend::cat).
#[track_caller]
pub fn cat(cuda: &'static Cuda, xs: &[Tensor], dim: usize) -> Tensor {
    let total = xs.iter().map(|x| x.dims()[dim]).sum();
    let y = cuda.empty(&xs[0].shape().with(dim, total), xs[0].dtype());
    if y.numel() == 0 {
        return y;
    }
    let mut start = 0;
    if xs.iter().all(Tensor::is_contiguous) {
        for part in xs.chunks(OPERANDS) {
            join(cuda, part, &y, dim, start);
            start += part.iter().map(|x| x.dims()[dim]).sum::<usize>();
        }
    } else {
        for x in xs {
            copy_into(cuda, x, &y.narrow(dim as isize, start, x.dims()[dim]));
            start += x.dims()[dim];
        }
    }
    y
}

/// Row-major operands into `y` from `start` along `dim`.
#[track_caller]
fn join(cuda: &'static Cuda, xs: &[Tensor], y: &Tensor, dim: usize, start: usize) {
    let size = y.dtype().size();
    // In bytes, first.
    let inner = y.dims()[dim + 1..].iter().product::<usize>() * size;
    let ends = xs.iter().scan(start * inner, |end, x| {
        *end += x.dims()[dim] * inner;
        Some(*end)
    });
    let starts: Vec<usize> = std::iter::once(start * inner).chain(ends).collect();
    let row = y.dims()[dim] * inner;
    let all = xs.iter().map(|x| address(x) as usize).chain(starts.iter().copied()).chain([row, address(y) as usize]);
    let (unit, name) = match all.fold(16, |unit, n| unit | n).trailing_zeros() {
        0 => (1, "units_of_1"),
        1 => (2, "units_of_2"),
        2 => (4, "units_of_4"),
        3 => (8, "units_of_8"),
        _ => (16, "units_of_16"),
    };
    let rows = y.numel() * size / row;
    let mut joined = Joined {
        from: [0; OPERANDS],
        starts: [0; OPERANDS + 1],
        count: xs.len() as i64,
        rows: rows as i64,
        row: (row / unit) as i64,
    };
    xs.iter().enumerate().for_each(|(k, x)| joined.from[k] = address(x));
    starts.iter().enumerate().for_each(|(k, s)| joined.starts[k] = (s / unit) as i64);
    let units = rows * (starts[xs.len()] - starts[0]) / unit;
    if units > 0 {
        let id = KernelId { file: "cat.cu", define: "", name, dtype: None };
        // SAFETY: the operands are row-major, and `y` has room for all of them.
        unsafe { cuda.launch(id, cuda.grid_for(units), BLOCK, 0, Arguments::default().tensor(y).value(joined)) };
    }
}
