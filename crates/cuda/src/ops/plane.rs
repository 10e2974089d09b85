//! Pooling and interpolation of planes, the last two dimensions: see `kernels/{plane_map,max_pool,plane_gather}.cu`.

use super::elementwise::{full, is_nothing, region};
use super::moved_as;
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::Layout;
use crate::programs::{KernelId, Program};
use ferrograd_tensor::backend::PlaneMap;
use ferrograd_tensor::ops::interpolate::{InterpolateGeometry, Interpolation};
use ferrograd_tensor::ops::pool::{AdaptivePool2dGeometry, Pool2dGeometry};
use ferrograd_tensor::{DType, Shape, Tensor};

/// What is compiled ahead of time.
pub const PROGRAMS: [Program; 7] = [
    ("plane_map.cu", WINDOWS),
    ("plane_map.cu", BINS),
    ("plane_map.cu", NEAREST),
    ("plane_map.cu", BILINEAR),
    ("max_pool.cu", WINDOWS),
    ("max_pool.cu", BINS),
    ("plane_gather.cu", ""),
];
const WINDOWS: &str = "AXIS=Windows";
const BINS: &str = "AXIS=Bins";
const NEAREST: &str = "AXIS=Nearest";
const BILINEAR: &str = "AXIS=Bilinear";

/// The same as in `planes.cuh`, as are the axes below.
#[repr(C)]
#[derive(Clone, Copy)]
struct Planes {
    starts: Layout<1>,
    row: i64,
    column: i64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Windows {
    n: i64,
    out: i64,
    kernel: i64,
    stride: i64,
    padding: i64,
    dilation: i64,
    count_include_pad: i64,
}

/// Of bins, and of the nearest neighbour.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sizes {
    n: i64,
    out: i64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Bilinear {
    n: i64,
    out: i64,
    align_corners: i64,
    scale: f64,
}

impl Planes {
    /// `x` has planes that are not empty.
    #[track_caller]
    fn of(x: &Tensor) -> Self {
        let (r, mut first) = (x.rank(), x.layout().clone());
        let [row, column] = [r - 2, r - 1].map(|d| first.strides[d] as i64);
        first.shape = first.shape.with(r - 2, 1).with(r - 1, 1);
        Planes { starts: Layout::of([&region(x, &first)]), row, column }
    }
}

fn windows(g: &Pool2dGeometry, count_include_pad: bool) -> [Windows; 2] {
    let (ho, wo) = g.out_size();
    let axis = |n: usize, out: usize, kernel: usize, stride: usize, padding: usize, dilation: usize| {
        let [n, out, kernel, stride, padding, dilation] = [n, out, kernel, stride, padding, dilation].map(|n| n as i64);
        Windows { n, out, kernel, stride, padding, dilation, count_include_pad: count_include_pad as i64 }
    };
    [
        axis(g.h, ho, g.kernel.0, g.stride.0, g.padding.0, g.dilation.0),
        axis(g.w, wo, g.kernel.1, g.stride.1, g.padding.1, g.dilation.1),
    ]
}

fn bins(g: &AdaptivePool2dGeometry) -> [Sizes; 2] {
    [(g.h, g.ho), (g.w, g.wo)].map(|(n, out)| Sizes { n: n as i64, out: out as i64 })
}

fn nearest(g: &InterpolateGeometry) -> [Sizes; 2] {
    [(g.h, g.ho), (g.w, g.wo)].map(|(n, out)| Sizes { n: n as i64, out: out as i64 })
}

fn bilinear(g: &InterpolateGeometry, align_corners: bool) -> [Bilinear; 2] {
    [(g.h, g.ho), (g.w, g.wo)].map(|(n, out)| {
        let scale = match align_corners {
            true => (n as f64 - 1.0) / (out as f64 - 1.0).max(1.0),
            false => n as f64 / out as f64,
        };
        Bilinear { n: n as i64, out: out as i64, align_corners: align_corners as i64, scale }
    })
}

/// Who makes one output from so many inputs.
#[derive(Clone, Copy, PartialEq)]
enum Worker {
    Thread,
    Warp,
}

impl Worker {
    /// A window of a warp's size keeps its lanes busy.
    fn of(window: usize) -> Self {
        if window >= 32 { Worker::Warp } else { Worker::Thread }
    }
    /// Of windows, which see no more than the plane.
    fn of_windows(g: &Pool2dGeometry) -> Self {
        Worker::of(g.kernel.0.min(g.h) * g.kernel.1.min(g.w))
    }
    /// Of bins, of which there is one.
    fn of_bins(g: &AdaptivePool2dGeometry) -> Self {
        Worker::of(g.h.div_ceil(g.ho.max(1)) * g.w.div_ceil(g.wo.max(1)))
    }
}

/// A shape with its last two dimensions replaced.
fn with_planes(x: &Shape, (h, w): (usize, usize)) -> Shape {
    x.with(x.rank() - 2, h).with(x.rank() - 1, w)
}

/// Launches a kernel of `x`, new tensors of one shape, and the axes.
///
/// # Safety
/// The program's axis is an `A`; the first of `made` has x's dtype.
#[track_caller]
unsafe fn launch<A: Copy>(
    cuda: &'static Cuda,
    (file, define): Program,
    name: &'static str,
    x: &Tensor,
    made: &[&Tensor],
    axes: [A; 2],
    worker: Worker,
) {
    if made[0].numel() == 0 {
        return;
    }
    let arguments = made.iter().fold(Arguments::default().tensor(x), |a, y| a.tensor(y));
    let [rows, columns] = axes;
    let arguments = arguments.value(Planes::of(x)).value(rows).value(columns);
    let threads = made[0].numel() * if worker == Worker::Warp { 32 } else { 1 };
    let id = KernelId { file, define, name, dtype: Some(x.dtype()) };
    // SAFETY: the caller's promise; axes and strides are those of the tensors.
    unsafe { cuda.launch(id, cuda.grid_for(threads), BLOCK, 0, arguments) };
}

/// See [`Backend::plane_map`](ferrograd_tensor::backend::Backend::plane_map).
#[track_caller]
pub fn plane_map(cuda: &'static Cuda, map: &PlaneMap, x: &Tensor) -> Tensor {
    let worker = match map {
        PlaneMap::AvgPool { windows, .. } => Worker::of_windows(windows),
        PlaneMap::AdaptiveAvgPool(bins) => Worker::of_bins(bins),
        PlaneMap::Interpolate { .. } => Worker::Thread,
    };
    let name = if worker == Worker::Warp { "map_by_warp" } else { "map_by_thread" };
    let y = cuda.empty(&with_planes(x.shape(), map.out_size()), x.dtype());
    linear(cuda, map, name, x, &y, worker);
    y
}

/// See [`Backend::plane_map_adjoint`](ferrograd_tensor::backend::Backend::plane_map_adjoint).
#[track_caller]
pub fn plane_map_adjoint(cuda: &'static Cuda, map: &PlaneMap, dy: &Tensor) -> Tensor {
    let shape = with_planes(dy.shape(), map.in_size());
    if dy.numel() == 0 {
        return full(cuda, &shape, dy.dtype(), 0.0);
    }
    let dx = cuda.empty(&shape, dy.dtype());
    linear(cuda, map, "adjoint", dy, &dx, Worker::Thread);
    dx
}

/// `y` from `x` by a kernel of `plane_map.cu`.
#[track_caller]
fn linear(cuda: &'static Cuda, map: &PlaneMap, name: &'static str, x: &Tensor, y: &Tensor, worker: Worker) {
    let program = |define| ("plane_map.cu", define);
    // SAFETY: each program with its axes; both operands have one dtype.
    unsafe {
        match map {
            PlaneMap::AvgPool { windows: g, count_include_pad } => {
                launch(cuda, program(WINDOWS), name, x, &[y], windows(g, *count_include_pad), worker)
            }
            PlaneMap::AdaptiveAvgPool(g) => launch(cuda, program(BINS), name, x, &[y], bins(g), worker),
            PlaneMap::Interpolate { sizes, mode: Interpolation::Nearest } => {
                launch(cuda, program(NEAREST), name, x, &[y], nearest(sizes), worker)
            }
            PlaneMap::Interpolate { sizes, mode: Interpolation::Bilinear { align_corners } } => {
                launch(cuda, program(BILINEAR), name, x, &[y], bilinear(sizes, *align_corners), worker)
            }
        }
    }
}

/// The maxima of `x`, and where they are.
#[track_caller]
fn maximum<A: Copy>(
    cuda: &'static Cuda,
    define: &'static str,
    x: &Tensor,
    out: (usize, usize),
    axes: [A; 2],
    worker: Worker,
) -> (Tensor, Tensor) {
    let shape = with_planes(x.shape(), out);
    let (y, index) = (cuda.empty(&shape, x.dtype()), cuda.empty(&shape, DType::I64));
    let name = if worker == Worker::Warp { "by_warp" } else { "by_thread" };
    // SAFETY: the callers give each program its axes; there is an index for each maximum.
    unsafe { launch(cuda, ("max_pool.cu", define), name, x, &[&y, &index], axes, worker) };
    (y, index)
}

/// See [`Backend::max_pool2d`](ferrograd_tensor::backend::Backend::max_pool2d).
#[track_caller]
pub fn max_pool2d(cuda: &'static Cuda, g: &Pool2dGeometry, x: &Tensor) -> (Tensor, Tensor) {
    maximum(cuda, WINDOWS, x, g.out_size(), windows(g, false), Worker::of_windows(g))
}

/// See [`Backend::adaptive_max_pool2d`](ferrograd_tensor::backend::Backend::adaptive_max_pool2d).
#[track_caller]
pub fn adaptive_max_pool2d(cuda: &'static Cuda, g: &AdaptivePool2dGeometry, x: &Tensor) -> (Tensor, Tensor) {
    maximum(cuda, BINS, x, (g.ho, g.wo), bins(g), Worker::of_bins(g))
}

/// Elements of a plane.
fn area(x: &Tensor) -> usize {
    x.dims()[x.rank() - 2..].iter().product()
}

/// See [`Backend::plane_gather`](ferrograd_tensor::backend::Backend::plane_gather).
#[track_caller]
pub fn plane_gather(cuda: &'static Cuda, x: &Tensor, index: &Tensor) -> Tensor {
    let y = cuda.empty(index.shape(), x.dtype());
    if y.numel() == 0 {
        return y;
    }
    if is_nothing(x) {
        return full(cuda, y.shape(), y.dtype(), 0.0);
    }
    let [h, w] = [x.dim(-2) as i64, x.dim(-1) as i64];
    let arguments = Arguments::default()
        .tensor(index)
        .tensor(x)
        .tensor(&y)
        .value(Layout::of([index, &y]))
        .value(area(index) as i64)
        .value(Planes::of(x))
        .value(h)
        .value(w);
    let id = KernelId { file: "plane_gather.cu", define: "", name: "plane_gather", dtype: Some(moved_as(x.dtype())) };
    // SAFETY: the kernel only reads places that a plane has; layouts and strides are those of the operands.
    unsafe { cuda.launch(id, cuda.grid_for(y.numel()), BLOCK, 0, arguments) };
    y
}

/// See [`Backend::plane_scatter`](ferrograd_tensor::backend::Backend::plane_scatter).
#[track_caller]
pub fn plane_scatter(cuda: &'static Cuda, dy: &Tensor, index: &Tensor, h: usize, w: usize) -> Tensor {
    /// The same as in `plane_gather.cu`: warps of a block, and the bytes of each one's piece.
    const WARPS: usize = 4;
    const PIECE: usize = 8192;
    let dx = cuda.empty(&with_planes(dy.shape(), (h, w)), dy.dtype());
    if dx.numel() == 0 {
        return dx;
    }
    let pieces = (h * w).div_ceil(PIECE / dy.dtype().accumulator().size());
    let planes = dx.numel() / (h * w);
    let arguments = Arguments::default()
        .tensor(index)
        .tensor(dy)
        .tensor(&dx)
        .value(Layout::of([index, dy]))
        .value(area(dy) as i64)
        .value(planes as i64)
        .value((h * w) as i64)
        .value(pieces as i64);
    let id = KernelId { file: "plane_gather.cu", define: "", name: "plane_scatter", dtype: Some(dy.dtype()) };
    let blocks = (planes * pieces).div_ceil(WARPS) as u32;
    // SAFETY: the kernel writes each plane's places and no others; the layout is that of the operands.
    unsafe { cuda.launch(id, [blocks, 1, 1], 32 * WARPS as u32, 0, arguments) };
    dx
}
