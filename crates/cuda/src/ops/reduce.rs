//! Reductions: the plan, from shape and strides, of who adds what.

use super::elementwise::{cast, full};
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::Layout;
use crate::programs::KernelId;
use ferrograd_tensor::backend::Reduce;
use ferrograd_tensor::{DType, Shape, Tensor};

/// Sums that fill a card: fewer are cut into parts.
const MANY: usize = 1 << 10;
/// Fewest elements of a part.
const PART: usize = 1 << 10;
/// Elements that a warp does better than a block.
const SHORT: usize = 1 << 10;

/// What the kernels are compiled for.
pub const DEFINES: [&str; 4] = ["OP=Sum", "OP=Prod", "OP=Max", "OP=Min"];

/// What a dtype is reduced in.
fn accumulator(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        DType::F32 | DType::F16 | DType::BF16 => DType::F32,
        _ => DType::I64,
    }
}

/// See [`Backend::reduce`](ferrograd_tensor::backend::Backend::reduce).
#[track_caller]
pub fn reduce(cuda: &'static Cuda, op: Reduce, x: &Tensor, dims: &[usize]) -> Tensor {
    let truth = matches!(op, Reduce::Any | Reduce::All);
    if truth && x.dtype() != DType::Bool {
        return reduce(cuda, op, &cast(cuda, x, DType::Bool), dims);
    }
    let shape: Shape = x.dims().iter().enumerate().map(|(d, &n)| if dims.contains(&d) { 1 } else { n }).collect();
    let dtype = match op {
        Reduce::Sum | Reduce::Prod if !x.dtype().is_float() => DType::I64,
        _ => x.dtype(),
    };
    if x.numel() == 0 {
        let identity = if matches!(op, Reduce::Prod | Reduce::All) { 1.0 } else { 0.0 };
        return full(cuda, &shape, dtype, identity);
    }
    // Truth is 1: `any` is the maximum and `all` the minimum.
    let define = match op {
        Reduce::Sum => DEFINES[0],
        Reduce::Prod => DEFINES[1],
        Reduce::Max | Reduce::Any => DEFINES[2],
        Reduce::Min | Reduce::All => DEFINES[3],
    };
    let (kept, reduced) = split(x, dims);
    let sums = reduce_parts(cuda, define, x, &kept, &reduced);
    let y = Tensor::from_buffer(
        sums.buffer().clone(),
        ferrograd_tensor::Layout::contiguous(&shape),
        sums.dtype(),
        sums.device(),
    );
    if y.dtype() == dtype { y } else { cast(cuda, &y, dtype) }
}

/// `x`, which has elements, with index 0 along `dims`, and the part of it that one sum takes.
pub fn split(x: &Tensor, dims: &[usize]) -> (Tensor, Tensor) {
    let layout = x.layout();
    let of = |wanted: bool| {
        let extents = x.dims().iter().enumerate().map(|(d, &n)| if dims.contains(&d) == wanted { n } else { 1 });
        let mut part = layout.clone();
        part.shape = extents.collect();
        super::elementwise::region(x, &part)
    };
    (of(false), of(true))
}

/// Who adds what, from shape and strides alone: see `kernels/reduce.cu`.
pub struct Plan {
    pub name: &'static str,
    pub grid: [u32; 3],
    pub block: u32,
    /// Parts that each sum is cut into, and the elements of one.
    pub parts: usize,
    pub part: usize,
}

impl Plan {
    /// For one sum over `reduced` for each element of `kept`; there is an element of both.
    pub fn of(kept: &Tensor, reduced: &Tensor) -> Plan {
        let (m, n) = (kept.numel(), reduced.numel());
        let fastest = |x: &Tensor| {
            let strides = x.dims().iter().zip(&x.layout().strides).filter(|&(&extent, _)| extent > 1);
            strides.map(|(_, s)| s.unsigned_abs()).min().unwrap_or(usize::MAX)
        };
        let along = fastest(reduced) <= fastest(kept);
        let most = if along { MANY / m } else { 64 * MANY / m };
        let parts = n.div_ceil(PART).min(most).clamp(1, 1024);
        let part = n.div_ceil(parts);
        let parts = n.div_ceil(part);
        let (name, blocks, block) = match along {
            true if part <= SHORT => ("by_warp", m.div_ceil(BLOCK as usize / 32), BLOCK),
            true => ("by_block", m, BLOCK),
            false => ("by_thread", m.div_ceil(128), 128),
        };
        Plan { name, grid: [blocks as u32, parts as u32, 1], block, parts, part }
    }
}

/// The reduction, in the accumulator's dtype: one number for each element of `kept`.
fn reduce_parts(cuda: &'static Cuda, define: &'static str, x: &Tensor, kept: &Tensor, reduced: &Tensor) -> Tensor {
    let plan = Plan::of(kept, reduced);
    let y = cuda.empty(&[plan.parts, kept.numel()].into(), accumulator(x.dtype()));
    let id = KernelId { file: "reduce.cu", define, name: plan.name, dtype: Some(x.dtype()) };
    let arguments = Arguments::default()
        .tensor(x)
        .tensor(&y)
        .value(Layout::of([kept]))
        .value(Layout::of([reduced]))
        .value(plan.part as i64);
    // SAFETY: `y` has a number for each part of each sum; the layouts are parts of `x`.
    unsafe { cuda.launch(id, plan.grid, plan.block, 0, arguments) };
    if plan.parts == 1 {
        return y;
    }
    let (kept, reduced) = split(&y, &[0]);
    reduce_parts(cuda, define, &y, &kept, &reduced)
}

/// See [`Backend::arg_reduce`](ferrograd_tensor::backend::Backend::arg_reduce).
#[track_caller]
pub fn arg_reduce(cuda: &'static Cuda, largest: bool, x: &Tensor, dim: usize) -> Tensor {
    let y = cuda.empty(&x.shape().with(dim, 1), DType::I64);
    if y.numel() > 0 {
        let (lines, line) = split(x, &[dim]);
        let id = KernelId { file: "arg_reduce.cu", define: "", name: "arg_reduce", dtype: Some(x.dtype()) };
        let arguments = Arguments::default()
            .tensor(x)
            .tensor(&y)
            .value(Layout::of([&lines]))
            .value(line.numel() as i64)
            .value(x.layout().strides[dim] as i64)
            .value(largest as i32);
        // SAFETY: a block for each line; the layout and the stride are x's.
        unsafe { cuda.launch(id, [y.numel() as u32, 1, 1], BLOCK, 0, arguments) };
    }
    y
}

/// See [`Backend::cumsum`](ferrograd_tensor::backend::Backend::cumsum).
#[track_caller]
pub fn cumsum(cuda: &'static Cuda, x: &Tensor, dim: usize) -> Tensor {
    let dtype = accumulator(x.dtype());
    if dtype != x.dtype() {
        let sums = cumsum(cuda, &cast(cuda, x, dtype), dim);
        return if x.dtype().is_half() { cast(cuda, &sums, x.dtype()) } else { sums };
    }
    let y = cuda.empty(x.shape(), dtype);
    if y.numel() > 0 {
        let (x_lines, _) = split(x, &[dim]);
        let (y_lines, _) = split(&y, &[dim]);
        let id = KernelId { file: "cumsum.cu", define: "", name: "cumsum", dtype: Some(dtype) };
        let arguments = Arguments::default()
            .tensor(x)
            .tensor(&y)
            .value(Layout::of([&x_lines, &y_lines]))
            .value(x.dims()[dim] as i64)
            .value(x.layout().strides[dim] as i64)
            .value(y.layout().strides[dim] as i64);
        // SAFETY: a block for each line; layouts and strides are those of the operands.
        unsafe { cuda.launch(id, [x_lines.numel() as u32, 1, 1], BLOCK, 0, arguments) };
    }
    y
}
