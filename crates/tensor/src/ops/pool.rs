//! Pooling: checks and dispatch.
//!
//! A *plane* is the last two dimensions, one channel of one image. The averages (and [`interpolate`](super::interpolate))
//! are linear maps from planes to planes, a [`PlaneMap`]. The maximum is *gathered* from the places where it is; its
//! derivative *scatters* back to the same places, and these two are each other's adjoints.

use crate::cpu::interpolate::{InterpolateGeometry, Interpolation};
use crate::tensor::same_device;
use crate::{DType, Shape, Tensor, ensure};

pub use crate::cpu::pool::{AdaptivePool2dGeometry, Pool2dGeometry};

/// A linear map of each plane (the last two dimensions) of a tensor `[N, C, H, W]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PlaneMap {
    /// The mean over windows.
    AvgPool {
        /// The windows.
        windows: Pool2dGeometry,
        /// Does the divisor count the padding?
        count_include_pad: bool,
    },
    /// The mean over a given number of bins.
    AdaptiveAvgPool(AdaptivePool2dGeometry),
    /// Resizing.
    Interpolate {
        /// From and to.
        sizes: InterpolateGeometry,
        /// Between the pixels.
        mode: Interpolation,
    },
}

impl PlaneMap {
    /// `(H, W)`
    pub fn in_size(&self) -> (usize, usize) {
        match self {
            PlaneMap::AvgPool { windows, .. } => (windows.h, windows.w),
            PlaneMap::AdaptiveAvgPool(bins) => (bins.h, bins.w),
            PlaneMap::Interpolate { sizes, .. } => (sizes.h, sizes.w),
        }
    }
    /// `(Ho, Wo)`
    pub fn out_size(&self) -> (usize, usize) {
        match self {
            PlaneMap::AvgPool { windows, .. } => windows.out_size(),
            PlaneMap::AdaptiveAvgPool(bins) => (bins.ho, bins.wo),
            PlaneMap::Interpolate { sizes, .. } => (sizes.ho, sizes.wo),
        }
    }
}

/// Windows along one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool1dOptions {
    /// Size of the window.
    pub kernel: usize,
    /// Steps of the window; `None` for the kernel's size.
    pub stride: Option<usize>,
    /// Padding on both sides, at most half of the window: −∞ for the maximum, 0 for the average.
    pub padding: usize,
    /// Distance between the window's taps; 1 for the average.
    pub dilation: usize,
    /// Round the output size up: windows that run over the end count.
    pub ceil_mode: bool,
    /// Does the average's divisor count the padding?
    pub count_include_pad: bool,
}
impl Default for Pool1dOptions {
    fn default() -> Self {
        Pool1dOptions { kernel: 2, stride: None, padding: 0, dilation: 1, ceil_mode: false, count_include_pad: true }
    }
}

/// Windows along two dimensions; pairs are `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2dOptions {
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Steps of the window; `None` for the kernel's size.
    pub stride: Option<[usize; 2]>,
    /// Padding on both sides, at most half of the window: −∞ for the maximum, 0 for the average.
    pub padding: [usize; 2],
    /// Distance between the window's taps; 1 for the average.
    pub dilation: [usize; 2],
    /// Round the output size up: windows that run over the end count.
    pub ceil_mode: bool,
    /// Does the average's divisor count the padding?
    pub count_include_pad: bool,
}
impl Default for Pool2dOptions {
    fn default() -> Self {
        Pool2dOptions {
            kernel: [2; 2],
            stride: None,
            padding: [0; 2],
            dilation: [1; 2],
            ceil_mode: false,
            count_include_pad: true,
        }
    }
}

impl Pool1dOptions {
    /// The same windows in images of height 1.
    pub fn two_dimensional(&self) -> Pool2dOptions {
        Pool2dOptions {
            kernel: [1, self.kernel],
            stride: self.stride.map(|s| [1, s]),
            padding: [0, self.padding],
            dilation: [1, self.dilation],
            ceil_mode: self.ceil_mode,
            count_include_pad: self.count_include_pad,
        }
    }
}

/// Number of planes, and their height and width.
#[track_caller]
fn planes(op: &'static str, x: &Tensor) -> (usize, usize, usize) {
    ensure!(x.dtype().is_float(), DType, op, "needs floats, got {}", x.dtype());
    let [n, c, h, w] = match *x.dims() {
        [n, c, h, w] => [n, c, h, w],
        _ => crate::fail!(Shape, op, "the input must be [N, C, H, W] ([N, C, L] in one dimension), got {}", x.shape()),
    };
    ensure!(h > 0 && w > 0, Shape, op, "the input's planes are empty: {}", x.shape());
    (n * c, h, w)
}

/// The checked windows over `x [N, C, H, W]`.
#[track_caller]
fn windows(op: &'static str, x: &Tensor, o: &Pool2dOptions) -> Pool2dGeometry {
    let (planes, h, w) = planes(op, x);
    let stride = o.stride.unwrap_or(o.kernel);
    ensure!(
        [o.kernel, stride, o.dilation].as_flattened().iter().all(|&n| n > 0),
        Value,
        op,
        "kernel {:?}, stride {stride:?} and dilation {:?} must be at least 1",
        o.kernel,
        o.dilation
    );
    for i in 0..2 {
        let span = o.dilation[i] * (o.kernel[i] - 1) + 1;
        ensure!(
            o.padding[i] <= span / 2,
            Value,
            op,
            "padding {:?} must be at most half of the window (kernel {:?}, dilation {:?})",
            o.padding,
            o.kernel,
            o.dilation
        );
    }
    let geometry = Pool2dGeometry {
        planes,
        h,
        w,
        kernel: o.kernel.into(),
        stride: stride.into(),
        padding: o.padding.into(),
        dilation: o.dilation.into(),
        ceil_mode: o.ceil_mode,
    };
    let (ho, wo) = geometry.out_size();
    ensure!(
        ho > 0 && wo > 0,
        Shape,
        op,
        "the window does not fit: input {} with padding {:?}, kernel {:?} with dilation {:?}",
        x.shape(),
        o.padding,
        o.kernel,
        o.dilation
    );
    geometry
}

#[track_caller]
fn bins(op: &'static str, x: &Tensor, size: [usize; 2]) -> AdaptivePool2dGeometry {
    let (planes, h, w) = planes(op, x);
    AdaptivePool2dGeometry { planes, h, w, ho: size[0], wo: size[1] }
}

/// `x` with its last two dimensions replaced.
pub(crate) fn with_planes(x: &Shape, (h, w): (usize, usize)) -> Shape {
    let r = x.rank();
    x.with(r - 2, h).with(r - 1, w)
}

/// What the checks of [`Tensor::avg_pool2d`] make of the options.
#[track_caller]
pub fn avg_pool2d_map(op: &'static str, x: &Tensor, o: &Pool2dOptions) -> PlaneMap {
    ensure!(o.dilation == [1, 1], Value, op, "the average has no dilation, got {:?}", o.dilation);
    PlaneMap::AvgPool { windows: windows(op, x, o), count_include_pad: o.count_include_pad }
}

/// What the checks of [`Tensor::adaptive_avg_pool2d`] make of the size.
#[track_caller]
pub fn adaptive_avg_pool2d_map(op: &'static str, x: &Tensor, size: [usize; 2]) -> PlaneMap {
    PlaneMap::AdaptiveAvgPool(bins(op, x, size))
}

/// A linear map of each plane of `x [N, C, H, W]`.
#[track_caller]
pub fn apply_map(map: &PlaneMap, x: &Tensor) -> Tensor {
    x.device().backend().plane_map(map, x)
}

/// The adjoint of [`apply_map`], its derivative: from gradients `[N, C, Ho, Wo]` to `[N, C, H, W]`.
#[track_caller]
pub fn apply_adjoint(map: &PlaneMap, dy: &Tensor) -> Tensor {
    dy.device().backend().plane_map_adjoint(map, dy)
}

/// The checks of a gather from, or a scatter to, planes of `h × w` at `index`; `x` is the floats that it moves.
#[track_caller]
fn check_places(op: &'static str, x: &Tensor, index: &Tensor, (h, w): (usize, usize)) {
    same_device(op, &[x, index]);
    ensure!(x.dtype().is_float(), DType, op, "needs floats, got {}", x.dtype());
    ensure!(index.dtype() == DType::I64, DType, op, "the index must be i64, got {}", index.dtype());
    let (backend, area) = (index.device().backend(), Shape::from([h, w]).numel_for(op));
    if index.numel() > 0 && !backend.checks_later(op, index, area, Some(-1)) {
        let ((low, high), area) = (backend.index_range(index), area as i64);
        ensure!(low >= -1, Index, op, "index {low} lies outside of -1..{area} ({h} × {w})");
        ensure!(high < area, Index, op, "index {high} lies outside of -1..{area} ({h} × {w})");
    }
}

/// `y[…, i, j] = x[…, index[…, i, j]]` within each plane, `index` counting its elements in row-major order; 0 where the
/// index is −1. Dimensions before the last two are equal.
#[track_caller]
pub fn plane_gather(x: &Tensor, index: &Tensor) -> Tensor {
    const OP: &str = "plane_gather";
    let (r, own) = (x.rank(), index.rank());
    ensure!(
        r >= 2 && own == r && x.dims()[..r - 2] == index.dims()[..r - 2],
        Shape,
        OP,
        "x and the index need at least 2 dimensions, equal before the last two: {} and {}",
        x.shape(),
        index.shape()
    );
    check_places(OP, x, index, (x.dims()[r - 2], x.dims()[r - 1]));
    x.device().backend().plane_gather(x, index)
}

/// The adjoint of [`plane_gather`]: `dx[…, index[…, i, j]] += dy[…, i, j]` in planes of `h × w`, indices −1 left out.
#[track_caller]
pub fn plane_scatter(dy: &Tensor, index: &Tensor, h: usize, w: usize) -> Tensor {
    const OP: &str = "plane_scatter";
    ensure!(
        dy.rank() >= 2 && dy.shape() == index.shape(),
        Shape,
        OP,
        "dy and the index need one shape of at least 2 dimensions: {} and {}",
        dy.shape(),
        index.shape()
    );
    check_places(OP, dy, index, (h, w));
    dy.device().backend().plane_scatter(dy, index, h, w)
}

/// `f` of images of height 1.
#[track_caller]
pub(crate) fn as_image<R>(op: &'static str, x: &Tensor, f: impl FnOnce(&Tensor) -> R) -> R {
    ensure!(x.rank() == 3, Shape, op, "the input must be [N, C, L], got {}", x.shape());
    f(&x.unsqueeze(2))
}

/// [`Tensor::max_pool2d_with_index`], with errors in the name of `op`.
#[track_caller]
pub fn max_pool(op: &'static str, x: &Tensor, o: &Pool2dOptions) -> (Tensor, Tensor) {
    let windows = windows(op, x, o);
    x.device().backend().max_pool2d(&windows, x)
}

/// [`Tensor::adaptive_max_pool2d_with_index`], with errors in the name of `op`.
#[track_caller]
pub fn adaptive_max_pool(op: &'static str, x: &Tensor, size: [usize; 2]) -> (Tensor, Tensor) {
    let bins = bins(op, x, size);
    x.device().backend().adaptive_max_pool2d(&bins, x)
}

impl Tensor {
    /// The maximum over windows: `y[…, i, j] = max_{a, b} x[…, i·s + a·d − p, j·s + b·d − p]`.
    ///
    /// `[N, C, H, W]` gives `[N, C, Ho, Wo]`, `Ho = ⌊(H + 2p − d(k − 1) − 1) / s⌋ + 1` (`⌈…⌉` in `ceil_mode`, less windows
    /// that would begin in the padding after the image). NaN wins. Floats of any type.
    ///
    /// # Panics
    /// If a window is larger than the padded input, the padding larger than half of it, or a plane is empty.
    #[track_caller]
    pub fn max_pool2d(&self, options: &Pool2dOptions) -> Tensor {
        max_pool("max_pool2d", self, options).0
    }
    /// [`max_pool2d`](Tensor::max_pool2d), and where each maximum is (i64): its index in its plane of `H·W` elements,
    /// the first of equals; −1 for a window that sees only padding.
    #[track_caller]
    pub fn max_pool2d_with_index(&self, options: &Pool2dOptions) -> (Tensor, Tensor) {
        max_pool("max_pool2d", self, options)
    }
    /// The maximum over windows of `[N, C, L]`, see [`max_pool2d`](Tensor::max_pool2d).
    #[track_caller]
    pub fn max_pool1d(&self, options: &Pool1dOptions) -> Tensor {
        const OP: &str = "max_pool1d";
        as_image(OP, self, |x| max_pool(OP, x, &options.two_dimensional()).0).squeeze(2)
    }
    /// The mean over windows of `[N, C, H, W]`, with the sizes of [`max_pool2d`](Tensor::max_pool2d).
    ///
    /// The divisor is the window's size, or without `count_include_pad` the number of its elements inside the image; what
    /// a window has beyond the padding (in `ceil_mode`) counts in neither.
    ///
    /// # Panics
    /// As [`max_pool2d`](Tensor::max_pool2d), and with a dilation.
    #[track_caller]
    pub fn avg_pool2d(&self, options: &Pool2dOptions) -> Tensor {
        apply_map(&avg_pool2d_map("avg_pool2d", self, options), self)
    }
    /// The mean over windows of `[N, C, L]`, see [`avg_pool2d`](Tensor::avg_pool2d).
    #[track_caller]
    pub fn avg_pool1d(&self, options: &Pool1dOptions) -> Tensor {
        const OP: &str = "avg_pool1d";
        as_image(OP, self, |x| apply_map(&avg_pool2d_map(OP, x, &options.two_dimensional()), x)).squeeze(2)
    }
    /// The mean over bins, as many as `size` says: output `i` of `O` covers inputs `⌊i·H/O⌋ … ⌈(i + 1)·H/O⌉ − 1`.
    /// `[N, C, H, W]` gives `[N, C, size[0], size[1]]`.
    #[track_caller]
    pub fn adaptive_avg_pool2d(&self, size: [usize; 2]) -> Tensor {
        apply_map(&adaptive_avg_pool2d_map("adaptive_avg_pool2d", self, size), self)
    }
    /// The mean over `size` bins of `[N, C, L]`, see [`adaptive_avg_pool2d`](Tensor::adaptive_avg_pool2d).
    #[track_caller]
    pub fn adaptive_avg_pool1d(&self, size: usize) -> Tensor {
        const OP: &str = "adaptive_avg_pool1d";
        as_image(OP, self, |x| apply_map(&adaptive_avg_pool2d_map(OP, x, [1, size]), x)).squeeze(2)
    }
    /// The maximum over the bins of [`adaptive_avg_pool2d`](Tensor::adaptive_avg_pool2d). NaN wins.
    #[track_caller]
    pub fn adaptive_max_pool2d(&self, size: [usize; 2]) -> Tensor {
        adaptive_max_pool("adaptive_max_pool2d", self, size).0
    }
    /// [`adaptive_max_pool2d`](Tensor::adaptive_max_pool2d), and where each maximum is, as in
    /// [`max_pool2d_with_index`](Tensor::max_pool2d_with_index).
    #[track_caller]
    pub fn adaptive_max_pool2d_with_index(&self, size: [usize; 2]) -> (Tensor, Tensor) {
        adaptive_max_pool("adaptive_max_pool2d", self, size)
    }
    /// The maximum over `size` bins of `[N, C, L]`.
    #[track_caller]
    pub fn adaptive_max_pool1d(&self, size: usize) -> Tensor {
        const OP: &str = "adaptive_max_pool1d";
        as_image(OP, self, |x| adaptive_max_pool(OP, x, [1, size]).0).squeeze(2)
    }
}
