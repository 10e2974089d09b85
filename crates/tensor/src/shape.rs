//! Shapes, layouts (shape + strides + offset) and the arguments that name dimensions.

use crate::{ensure, fail};
use smallvec::SmallVec;
use std::fmt;
use std::ops::{Deref, Range};

/// Up to four numbers without an allocation: a tensor is then 128 bytes.
pub type Dims<T = usize> = SmallVec<[T; 4]>;

/// In [`Tensor::reshape`](crate::Tensor::reshape): "whatever makes the number of elements right" (−1 in NumPy).
pub const INFER: usize = usize::MAX;

/// The extent of each dimension.
#[derive(PartialEq, Eq, Hash, Default)]
pub struct Shape(Dims);

impl Clone for Shape {
    fn clone(&self) -> Shape {
        // One copy of memory, where SmallVec's own clone goes through an iterator: every operation clones a few.
        Shape(SmallVec::from_slice(&self.0))
    }
}

impl Shape {
    /// Number of elements: the product of the extents (1 for a scalar).
    ///
    /// # Panics
    /// If it exceeds `isize::MAX`, which no memory can hold and no stride can span.
    #[track_caller]
    pub fn numel(&self) -> usize {
        self.checked_numel().unwrap_or_else(|| self.too_large("numel"))
    }
    /// [`numel`](Shape::numel), with errors in the name of `op`.
    #[track_caller]
    pub(crate) fn numel_for(&self, op: &'static str) -> usize {
        self.checked_numel().unwrap_or_else(|| self.too_large(op))
    }
    #[cold]
    #[track_caller]
    fn too_large(&self, op: &'static str) -> ! {
        fail!(Shape, op, "shape {self} has more than {} elements", isize::MAX)
    }
    /// [`numel`](Shape::numel), if there can be as many.
    fn checked_numel(&self) -> Option<usize> {
        let (numel, overflow) = self.0.iter().fold((1usize, false), |(product, before), &n| {
            let (product, now) = product.overflowing_mul(n);
            (product, before | now)
        });
        // An extent of 0 makes the product 0, also behind others whose own product overflows.
        match overflow || numel > isize::MAX as usize {
            true => self.0.contains(&0).then_some(0),
            false => Some(numel),
        }
    }
    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }
    /// The extents as a slice.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }
    /// Row-major strides. Without elements nothing is reached by them, and they may wrap.
    pub fn strides(&self) -> Dims<isize> {
        let mut strides: Dims<isize> = SmallVec::from_elem(1, self.rank());
        for d in (1..self.rank()).rev() {
            strides[d - 1] = strides[d].wrapping_mul(self.0[d].max(1) as isize);
        }
        strides
    }
    /// This shape with dimension `d` set to `n`.
    pub fn with(&self, d: usize, n: usize) -> Shape {
        let mut out = self.clone();
        out.0[d] = n;
        out
    }
    /// This shape without dimension `d`.
    pub fn without(&self, d: usize) -> Shape {
        let mut out = self.clone();
        out.0.remove(d);
        out
    }
    /// This shape with a dimension of extent `n` put in at `d`.
    pub fn insert(&self, d: usize, n: usize) -> Shape {
        let mut out = self.clone();
        out.0.insert(d, n);
        out
    }

    /// This shape with dimensions `start..=end` joined into one; a scalar becomes `[1]`.
    #[track_caller]
    pub fn flatten(&self, start: isize, end: isize) -> Shape {
        let (s, e) = (axis(start, self.rank().max(1), "flatten"), axis(end, self.rank().max(1), "flatten"));
        ensure!(s <= e, Index, "flatten", "start dimension {start} lies behind end dimension {end}");
        if self.rank() == 0 {
            return [1].into();
        }
        let joined = Shape::from(&self.0[s..=e]).numel_for("flatten");
        self.0[..s].iter().copied().chain([joined]).chain(self.0[e + 1..].iter().copied()).collect()
    }

    /// The shape both broadcast to: aligned at the last dimension, extents equal or 1.
    #[track_caller]
    pub fn broadcast(&self, other: &Shape, op: &'static str) -> Shape {
        let rank = self.rank().max(other.rank());
        let at = |s: &Shape, d: usize| if d + s.rank() >= rank { s.0[d + s.rank() - rank] } else { 1 };
        (0..rank)
            .map(|d| match (at(self, d), at(other, d)) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                (a, b) => fail!(
                    Shape,
                    op,
                    "shapes do not broadcast: {self} with {other} (dimension {}: {a} ≠ {b}, and neither is 1)",
                    d as isize - rank as isize
                ),
            })
            .collect()
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}", &self.0[..])
    }
}
impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}", &self.0[..])
    }
}
impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(iter: I) -> Self {
        Shape(iter.into_iter().collect())
    }
}
impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Shape(SmallVec::from_slice(dims))
    }
}
impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        dims.as_slice().into()
    }
}
impl From<&Vec<usize>> for Shape {
    fn from(dims: &Vec<usize>) -> Self {
        dims.as_slice().into()
    }
}
impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        dims.as_slice().into()
    }
}
impl<const N: usize> From<&[usize; N]> for Shape {
    fn from(dims: &[usize; N]) -> Self {
        dims.as_slice().into()
    }
}
impl From<usize> for Shape {
    fn from(n: usize) -> Self {
        [n].into()
    }
}
impl From<()> for Shape {
    fn from(_: ()) -> Self {
        Shape::default()
    }
}
impl From<&Shape> for Shape {
    fn from(s: &Shape) -> Self {
        s.clone()
    }
}
impl<const N: usize> PartialEq<[usize; N]> for Shape {
    fn eq(&self, other: &[usize; N]) -> bool {
        self.0[..] == other[..]
    }
}

/// Where a tensor's elements lie in its storage: element `i` is at `offset + Σ i_d · strides_d`.
#[derive(PartialEq, Eq, Debug)]
pub struct Layout {
    /// Extents.
    pub shape: Shape,
    /// Elements between neighbours along each dimension; 0 repeats, negative runs backwards.
    pub strides: Dims<isize>,
    /// Index of the first element.
    pub offset: usize,
}

impl Clone for Layout {
    fn clone(&self) -> Layout {
        Layout { shape: self.shape.clone(), strides: SmallVec::from_slice(&self.strides), offset: self.offset }
    }
}

impl Layout {
    /// Row-major from the start of the storage.
    pub fn contiguous(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        Layout { strides: shape.strides(), shape, offset: 0 }
    }
    /// Are the elements one row-major run (from any offset)? Strides of dimensions of extent 1 do not matter.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1isize;
        for d in (0..self.shape.rank()).rev() {
            let n = self.shape[d];
            if n == 0 {
                return true;
            }
            if n != 1 {
                if self.strides[d] != expected {
                    return false;
                }
                expected = expected.wrapping_mul(n as isize); // overflows if an extent is 0
            }
        }
        true
    }
    /// Number of elements.
    #[track_caller]
    pub fn numel(&self) -> usize {
        self.shape.numel()
    }
    /// The same elements seen with `shape`, stride 0 where a dimension is repeated. `shape` must be one it broadcasts to.
    #[track_caller]
    pub fn expand(&self, shape: &Shape, op: &'static str) -> Layout {
        let (rank, new) = (self.shape.rank(), shape.rank());
        ensure!(new >= rank, Shape, op, "{} does not expand to {shape}: fewer dimensions", self.shape);
        let strides = (0..new)
            .map(|d| {
                if d < new - rank {
                    return 0;
                }
                let (n, s) = (self.shape[d - (new - rank)], self.strides[d - (new - rank)]);
                match n {
                    _ if n == shape[d] => s,
                    1 => 0,
                    _ => fail!(Shape, op, "{} does not expand to {shape}: dimension {d} is {n}, not 1", self.shape),
                }
            })
            .collect();
        shape.numel_for(op);
        Layout { shape: shape.clone(), strides, offset: self.offset }
    }
    /// The layout of the same elements under another shape, if no element has to move.
    pub fn reshape(&self, shape: &Shape) -> Option<Layout> {
        if self.is_contiguous() || self.numel() == 0 {
            return Some(Layout { strides: shape.strides(), shape: shape.clone(), offset: self.offset });
        }
        // Match runs of old dimensions with runs of new ones that hold the same number of elements; a run of old
        // dimensions can be regrouped when it is contiguous within itself.
        let old: Dims<(usize, isize)> =
            self.shape.iter().zip(&self.strides).filter(|&(&n, _)| n != 1).map(|(&n, &s)| (n, s)).collect();
        let mut strides: Dims<isize> = SmallVec::from_elem(1, shape.rank());
        let (mut o, mut n) = (0, 0);
        while n < shape.rank() {
            if shape[n] == 1 {
                n += 1;
                continue;
            }
            let (o0, n0) = (o, n);
            let (mut have, mut want) = (old[o].0, shape[n]);
            while have != want {
                if have < want {
                    o += 1;
                    if old[o - 1].1 != old[o].1 * old[o].0 as isize {
                        return None;
                    }
                    have *= old[o].0;
                } else {
                    n += 1;
                    want *= shape[n];
                }
            }
            let mut stride = old[o].1;
            for d in (n0..=n).rev() {
                strides[d] = stride;
                stride *= shape[d] as isize;
            }
            debug_assert!(o0 <= o);
            (o, n) = (o + 1, n + 1);
        }
        Some(Layout { shape: shape.clone(), strides, offset: self.offset })
    }
    /// The storage indices that lie between the first and the last one used, both included (`0..0` if there are no
    /// elements); `None` if one of them is negative or beyond what memory can hold.
    pub fn span(&self) -> Option<Range<usize>> {
        if self.shape.checked_numel()? == 0 {
            return Some(0..0);
        }
        let (mut first, mut last) = (isize::try_from(self.offset).ok()?, isize::try_from(self.offset).ok()?);
        for (&n, &s) in self.shape.iter().zip(&self.strides) {
            let reach = (n as isize - 1).checked_mul(s)?;
            let end = if reach < 0 { &mut first } else { &mut last };
            *end = end.checked_add(reach)?;
        }
        Some(usize::try_from(first).ok()?..last as usize + 1)
    }
    /// Does a storage of `bytes` hold every element, of `size` bytes each?
    pub fn fits(&self, size: usize, bytes: usize) -> bool {
        self.strides.len() == self.shape.rank() && self.span().is_some_and(|span| span.end <= bytes / size)
    }
}

/// The dimension `dim` of a tensor of `rank` dimensions, counted from the end if negative.
#[track_caller]
pub fn axis(dim: isize, rank: usize, op: &'static str) -> usize {
    let d = if dim < 0 { dim + rank as isize } else { dim };
    ensure!(
        (0..rank as isize).contains(&d),
        Index,
        op,
        "dimension {dim} is out of range for a tensor of {rank} dimension{}",
        if rank == 1 { "" } else { "s" }
    );
    d as usize
}

/// What can name a set of dimensions: `1`, `-1`, `[0, -1]`, a slice, or `..` for all.
pub trait Axes {
    /// The dimensions, sorted, without repeats, as indices from the start.
    #[track_caller]
    fn resolve(&self, rank: usize, op: &'static str) -> Dims;
}
#[track_caller]
fn resolve(dims: impl Iterator<Item = isize>, rank: usize, op: &'static str) -> Dims {
    let mut out = Dims::new();
    for d in dims {
        let d = axis(d, rank, op);
        ensure!(!out.contains(&d), Index, op, "dimension {d} is named twice");
        out.push(d);
    }
    out.sort_unstable();
    out
}
impl Axes for std::ops::RangeFull {
    fn resolve(&self, rank: usize, _: &'static str) -> Dims {
        (0..rank).collect()
    }
}
macro_rules! axes {
    ($($t:ty)*) => {$(
        impl Axes for $t {
            #[track_caller]
            fn resolve(&self, rank: usize, op: &'static str) -> Dims { resolve([*self as isize].into_iter(), rank, op) }
        }
        impl Axes for [$t] {
            #[track_caller]
            fn resolve(&self, rank: usize, op: &'static str) -> Dims { resolve(self.iter().map(|&d| d as isize), rank, op) }
        }
        impl Axes for &[$t] {
            #[track_caller]
            fn resolve(&self, rank: usize, op: &'static str) -> Dims { (**self).resolve(rank, op) }
        }
        impl<const N: usize> Axes for [$t; N] {
            #[track_caller]
            fn resolve(&self, rank: usize, op: &'static str) -> Dims { self[..].resolve(rank, op) }
        }
    )*};
}
axes!(i32 isize usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshape_without_copy() {
        let x = Layout::contiguous([4, 6]);
        assert!(x.reshape(&[2, 2, 3, 2].into()).is_some());
        let t = Layout { shape: [6, 4].into(), strides: [1, 6].into_iter().collect(), offset: 0 };
        assert_eq!(t.reshape(&[2, 3, 4].into()).unwrap().strides[..], [3, 1, 6]);
        assert_eq!(t.reshape(&[6, 1, 2, 2].into()).unwrap().strides[..], [1, 1, 12, 6]);
        assert!(t.reshape(&[24].into()).is_none());
        assert!(t.reshape(&[3, 8].into()).is_none());
    }
}
