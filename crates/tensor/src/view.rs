//! Views: other shapes and sections of the same storage. No element moves, unless [`reshape`](Tensor::reshape) has to.

use crate::shape::{Axes, Dims, INFER, axis};
use crate::{Layout, Shape, Tensor, ensure, fail};
use std::ops::{Bound, RangeBounds};

impl Tensor {
    /// The same elements in row-major order under another shape; one extent may be [`INFER`].
    /// Copies only if strides cannot describe the result.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = self.shape().infer(shape);
        match self.layout.reshape(&shape) {
            Some(layout) => self.with_layout(layout),
            None => self.contiguous().with_layout(Layout::contiguous(shape)),
        }
    }
    /// Dimensions `start..=end` joined into one.
    #[track_caller]
    pub fn flatten_dims(&self, start: isize, end: isize) -> Tensor {
        self.reshape(self.shape().flatten(start, end))
    }
    /// All elements in one dimension.
    pub fn flatten(&self) -> Tensor {
        self.reshape(self.numel())
    }
    /// Dimension `dim` taken apart into `sizes`, one of which may be [`INFER`].
    #[track_caller]
    pub fn unflatten(&self, dim: isize, sizes: &[usize]) -> Tensor {
        let d = axis(dim, self.rank(), "unflatten");
        let sizes = Shape::from([self.dims()[d]]).infer(sizes);
        let dims = self.dims();
        self.reshape(dims[..d].iter().chain(sizes.iter()).chain(&dims[d + 1..]).copied().collect::<Shape>())
    }
    /// The dimensions in another order: dimension `i` of the result is dimension `order[i]` of this.
    #[track_caller]
    pub fn permute<const N: usize>(&self, order: [isize; N]) -> Tensor {
        let order: Vec<usize> = order.iter().map(|&d| axis(d, self.rank(), "permute")).collect();
        self.permute_dims(&order)
    }
    /// [`permute`](Tensor::permute) by a slice.
    #[track_caller]
    pub fn permute_dims(&self, order: &[usize]) -> Tensor {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        ensure!(
            sorted.iter().copied().eq(0..self.rank()),
            Shape,
            "permute",
            "{order:?} is no permutation of the {} dimensions of {}",
            self.rank(),
            self.shape()
        );
        self.with_layout(Layout {
            shape: order.iter().map(|&d| self.dims()[d]).collect(),
            strides: order.iter().map(|&d| self.layout.strides[d]).collect(),
            offset: self.layout.offset,
        })
    }
    /// The order of dimensions in which the elements lie side by side, if there is one and it is not the tensor's own.
    pub(crate) fn dense_order(&self) -> Option<Vec<usize>> {
        if self.is_contiguous() || self.layout.strides.iter().any(|&s| s <= 0) {
            return None;
        }
        let mut order: Vec<usize> = (0..self.rank()).collect();
        order.sort_by_key(|&d| std::cmp::Reverse(self.layout.strides[d]));
        self.permute_dims(&order).is_contiguous().then_some(order)
    }
    /// Two dimensions exchanged.
    #[track_caller]
    pub fn transpose(&self, a: isize, b: isize) -> Tensor {
        let (a, b) = (axis(a, self.rank(), "transpose"), axis(b, self.rank(), "transpose"));
        let mut order: Dims = (0..self.rank()).collect();
        order.swap(a, b);
        self.permute_dims(&order)
    }
    /// The last two dimensions exchanged: the matrix transpose.
    #[track_caller]
    pub fn t(&self) -> Tensor {
        ensure!(self.rank() >= 2, Shape, "t", "needs at least 2 dimensions, got {}", self.shape());
        self.transpose(-2, -1)
    }
    /// Repeats dimensions of extent 1 (and new leading ones) to `shape`, without copying. [`INFER`] keeps an extent.
    #[track_caller]
    pub fn expand(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let lead = shape.rank().saturating_sub(self.rank());
        let keep = |(d, &n): (usize, &usize)| match n {
            INFER if d >= lead => self.dims()[d - lead],
            INFER => {
                fail!(Shape, "expand", "{} has no dimension whose extent the leading INFER could keep", self.shape())
            }
            n => n,
        };
        let shape = shape.iter().enumerate().map(keep).collect();
        self.with_layout(self.layout.expand(&shape, "expand"))
    }
    /// Without dimension `dim`, which must have extent 1.
    #[track_caller]
    pub fn squeeze(&self, dim: isize) -> Tensor {
        let d = axis(dim, self.rank(), "squeeze");
        let n = self.dims()[d];
        ensure!(n == 1, Shape, "squeeze", "dimension {dim} of {} has extent {n}, not 1", self.shape());
        let mut layout = self.layout.clone();
        layout.shape = layout.shape.without(d);
        layout.strides.remove(d);
        self.with_layout(layout)
    }
    /// With a dimension of extent 1 put in at `dim` (−1 appends).
    #[track_caller]
    pub fn unsqueeze(&self, dim: isize) -> Tensor {
        let d = axis(dim, self.rank() + 1, "unsqueeze");
        let mut layout = self.layout.clone();
        layout.shape = layout.shape.insert(d, 1);
        layout.strides.insert(d, 0);
        self.with_layout(layout)
    }
    /// `len` entries of dimension `dim` from `start`.
    #[track_caller]
    pub fn narrow(&self, dim: isize, start: usize, len: usize) -> Tensor {
        let d = axis(dim, self.rank(), "narrow");
        let n = self.dims()[d];
        ensure!(
            start.checked_add(len).is_some_and(|end| end <= n),
            Index,
            "narrow",
            "{start}..{start}+{len} lies outside dimension {dim} of {} (extent {n})",
            self.shape()
        );
        let mut layout = self.layout.clone();
        if len > 0 {
            layout.offset = (layout.offset as isize + start as isize * layout.strides[d]) as usize;
        }
        layout.shape = layout.shape.with(d, len);
        self.with_layout(layout)
    }
    /// Entry `index` (from the end if negative) of dimension `dim`, which disappears.
    #[track_caller]
    pub fn select(&self, dim: isize, index: isize) -> Tensor {
        let d = axis(dim, self.rank(), "select");
        let n = self.dims()[d];
        let i = if index < 0 { index + n as isize } else { index };
        ensure!(
            (0..n as isize).contains(&i),
            Index,
            "select",
            "index {index} lies outside dimension {dim} of {} (extent {n})",
            self.shape()
        );
        self.narrow(d as isize, i as usize, 1).squeeze(d as isize)
    }
    /// The entries along the named dimensions in reverse order.
    #[track_caller]
    pub fn flip(&self, dims: impl Axes) -> Tensor {
        let mut layout = self.layout.clone();
        for d in dims.resolve(self.rank(), "flip") {
            let last = self.dims()[d].saturating_sub(1) as isize;
            layout.offset = (layout.offset as isize + last * layout.strides[d]) as usize;
            layout.strides[d] = -layout.strides[d];
        }
        self.with_layout(layout)
    }
    /// A section by ranges, steps and indices, one per dimension; missing ones take everything. See [`s!`](crate::s).
    ///
    /// ```
    /// use ferrograd_tensor::{Tensor, s};
    /// let x = Tensor::arange(0i64, 24, 1).reshape([2, 3, 4]);
    /// assert_eq!(*x.slice(s![1, .., ..;2]).shape(), [3, 2]);
    /// assert_eq!(x.slice(s![-1, -1, ..;-1]).to_vec::<i64>(), [23, 22, 21, 20]);
    /// ```
    #[track_caller]
    pub fn slice(&self, section: impl AsRef<[Slice]>) -> Tensor {
        let section = section.as_ref();
        ensure!(
            section.len() <= self.rank(),
            Index,
            "slice",
            "{} indices for the {} dimensions of {}",
            section.len(),
            self.rank(),
            self.shape()
        );
        let (mut out, mut d) = (self.clone(), 0);
        for s in section {
            out = match *s {
                Slice::Index(i) => out.select(d, i),
                Slice::Range { start, end, step } => {
                    d += 1;
                    out.slice_dim(d - 1, start, end, step)
                }
            };
        }
        out
    }
    /// `start..end` by `step` along one dimension, Python's rules: negative ends count from the back, and out-of-range
    /// ends are clipped. A negative step runs backwards over the same entries.
    #[track_caller]
    pub fn slice_dim(&self, dim: isize, start: isize, end: Option<isize>, step: isize) -> Tensor {
        ensure!(step != 0, Value, "slice", "step must not be 0");
        let d = axis(dim, self.rank(), "slice");
        let n = self.dims()[d] as isize;
        let clip = |i: isize| (if i < 0 { i + n } else { i }).clamp(0, n);
        let (start, end) = (clip(start), end.map_or(n, clip));
        let mut out = self.narrow(dim, start as usize, (end - start).max(0) as usize);
        if step < 0 {
            out = out.flip(d);
        }
        let stride = step.unsigned_abs();
        if stride > 1 {
            out.layout.shape = out.layout.shape.with(d, out.dims()[d].div_ceil(stride));
            out.layout.strides[d] *= stride as isize;
        }
        out
    }
    /// Sections of dimension `dim` of the given sizes, which must add up.
    #[track_caller]
    pub fn split(&self, sizes: &[usize], dim: isize) -> Vec<Tensor> {
        let n = self.dim(dim);
        ensure!(
            sizes.iter().sum::<usize>() == n,
            Shape,
            "split",
            "sizes {sizes:?} do not add up to dimension {dim} of {} (extent {n})",
            self.shape()
        );
        let mut start = 0;
        sizes
            .iter()
            .map(|&len| {
                start += len;
                self.narrow(dim, start - len, len)
            })
            .collect()
    }
    /// `n` sections of dimension `dim`, equal but for the last ones, which may be smaller or missing (as in PyTorch).
    #[track_caller]
    pub fn chunk(&self, n: usize, dim: isize) -> Vec<Tensor> {
        ensure!(n > 0, Value, "chunk", "needs at least one chunk");
        let extent = self.dim(dim);
        let size = extent.div_ceil(n).max(1);
        (0..extent.div_ceil(size).max(1)).map(|i| self.narrow(dim, i * size, size.min(extent - i * size))).collect()
    }
    /// A view by explicit strides into the storage, for windows.
    ///
    /// # Panics
    /// If it would reach outside of the storage.
    #[track_caller]
    pub fn as_strided(&self, shape: impl Into<Shape>, strides: &[isize], offset: usize) -> Tensor {
        let layout = Layout { shape: shape.into(), strides: strides.iter().copied().collect(), offset };
        ensure!(
            strides.iter().all(|&s| s >= 0) && layout.fits(self.dtype.size(), self.buffer.bytes()),
            Index,
            "as_strided",
            "shape {} with strides {strides:?} from {offset} reaches outside of the storage",
            layout.shape
        );
        self.with_layout(layout)
    }
    /// The diagonal of the last two dimensions.
    #[track_caller]
    pub fn diagonal(&self) -> Tensor {
        ensure!(self.rank() >= 2, Shape, "diagonal", "needs at least 2 dimensions, got {}", self.shape());
        let r = self.rank();
        let n = self.dims()[r - 1].min(self.dims()[r - 2]);
        let mut layout = self.layout.clone();
        let stride = layout.strides[r - 1] + layout.strides[r - 2];
        layout.shape = layout.shape.without(r - 1).with(r - 2, n);
        layout.strides.truncate(r - 1);
        layout.strides[r - 2] = stride;
        self.with_layout(layout)
    }
}

impl Shape {
    /// `shape` with its [`INFER`] replaced by what makes it hold as many elements as this.
    ///
    /// # Panics
    /// If it cannot, or there is more than one.
    #[track_caller]
    pub fn infer(&self, shape: impl Into<Shape>) -> Shape {
        let (from, shape) = (self, shape.into());
        let numel = from.numel();
        let unknown = shape.iter().filter(|&&n| n == INFER).count();
        let known = shape.iter().copied().filter(|&n| n != INFER).collect::<Shape>().numel_for("reshape");
        let show = |s: &Shape| {
            let dims: Vec<String> =
                s.iter().map(|&n| if n == INFER { "INFER".into() } else { n.to_string() }).collect();
            format!("[{}]", dims.join(", "))
        };
        match unknown {
            0 if known == numel => shape,
            1 if known != 0 && numel.is_multiple_of(known) => {
                shape.iter().map(|&n| if n == INFER { numel / known } else { n }).collect()
            }
            0 | 1 => fail!(
                Shape,
                "reshape",
                "{from} has {numel} elements and does not fill {} ({known}{})",
                show(&shape),
                if unknown == 1 { " × INFER" } else { "" }
            ),
            _ => fail!(Shape, "reshape", "{} leaves more than one extent to infer", show(&shape)),
        }
    }
}

/// What to take of one dimension; made by [`s!`](crate::s).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slice {
    /// One entry; the dimension disappears.
    Index(isize),
    /// Entries `start..end` by `step`.
    Range {
        /// First entry, from the end if negative.
        start: isize,
        /// Bound, from the end if negative; `None` for the end.
        end: Option<isize>,
        /// Distance; negative runs backwards.
        step: isize,
    },
}

impl Slice {
    /// A range with a step.
    pub fn range<T: IntoIndex>(range: impl RangeBounds<T>, step: isize) -> Slice {
        let start = match range.start_bound() {
            Bound::Included(i) => i.index(),
            Bound::Excluded(i) => i.index() + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            // ..=-1 means to the very end.
            Bound::Included(i) if i.index() == -1 => None,
            Bound::Included(i) => Some(i.index() + 1),
            Bound::Excluded(i) => Some(i.index()),
            Bound::Unbounded => None,
        };
        Slice::Range { start, end, step }
    }
}

/// An integer that can be an index.
pub trait IntoIndex {
    /// As `isize`.
    fn index(&self) -> isize;
}
macro_rules! into_index {
    ($($t:ty)*) => {$(
        impl IntoIndex for $t { fn index(&self) -> isize { *self as isize } }
        impl From<$t> for Slice { fn from(i: $t) -> Slice { Slice::Index(i as isize) } }
        impl From<std::ops::Range<$t>> for Slice { fn from(r: std::ops::Range<$t>) -> Slice { Slice::range(r, 1) } }
        impl From<std::ops::RangeFrom<$t>> for Slice { fn from(r: std::ops::RangeFrom<$t>) -> Slice { Slice::range(r, 1) } }
        impl From<std::ops::RangeTo<$t>> for Slice { fn from(r: std::ops::RangeTo<$t>) -> Slice { Slice::range(r, 1) } }
        impl From<std::ops::RangeInclusive<$t>> for Slice { fn from(r: std::ops::RangeInclusive<$t>) -> Slice { Slice::range(r, 1) } }
    )*};
}
into_index!(i32 isize usize);
impl From<std::ops::RangeFull> for Slice {
    fn from(_: std::ops::RangeFull) -> Slice {
        Slice::Range { start: 0, end: None, step: 1 }
    }
}

/// A section for [`Tensor::slice`]: `s![0, 1..3, .., ..;2, -1]`, one entry per dimension, `;step` after a range.
#[macro_export]
macro_rules! s {
    (@step $r:expr, $step:expr) => {{
        match $crate::Slice::from($r) {
            $crate::Slice::Range { start, end, .. } => $crate::Slice::Range { start, end, step: $step },
            index => index,
        }
    }};
    (@parse [$($done:tt)*] $r:expr; $step:expr, $($rest:tt)*) => { $crate::s!(@parse [$($done)* $crate::s!(@step $r, $step),] $($rest)*) };
    (@parse [$($done:tt)*] $r:expr; $step:expr) => { [$($done)* $crate::s!(@step $r, $step)] };
    (@parse [$($done:tt)*] $r:expr, $($rest:tt)*) => { $crate::s!(@parse [$($done)* $crate::Slice::from($r),] $($rest)*) };
    (@parse [$($done:tt)*] $r:expr) => { [$($done)* $crate::Slice::from($r)] };
    (@parse [$($done:tt)*]) => { [$($done)*] };
    ($($t:tt)*) => { $crate::s!(@parse [] $($t)*) };
}
