//! Strides, as a kernel reads them (`kernels/layout.cuh`).

use ferrograd_tensor::{Tensor, fail};
use smallvec::SmallVec;

/// Most dimensions that are left once those that lie together are one.
const DIMS: usize = 10;

/// How operands lie, as in `layout.cuh`.
#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Placement {
    Apart,
    InChunks,
    InARun,
}

/// Shape and strides of `N` operands of one shape; the same as `Layout<N>` in `layout.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Layout<const N: usize> {
    numel: i64,
    rank: i32,
    placement: Placement,
    extents: [i64; DIMS],
    strides: [[i64; DIMS]; N],
}

/// Does the last dimension lie in runs of a multiple of `length` elements, each of which begins where as many can be moved at once?
pub fn in_chunks(x: &Tensor, length: usize) -> bool {
    let Some((&n, outer)) = x.dims().split_last() else { return length == 1 };
    let (stride, strides) = x.layout().strides.split_last().expect("a stride for each dimension");
    let whole = |(&extent, &stride): (&usize, &isize)| extent == 1 || stride.unsigned_abs().is_multiple_of(length);
    (*stride == 1 || n == 1)
        && n.is_multiple_of(length)
        && outer.iter().zip(strides).all(whole)
        && crate::memory::address(x).is_multiple_of((length * x.dtype().size()) as u64)
}

/// The same as `Plane` in `copy.cu`: matrices of which x has the columns in runs, and y the rows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Plane {
    rows: i64,
    columns: i64,
    x_pitch: i64,
    y_pitch: i64,
}

impl Plane {
    /// Squares of so many rows and columns that cover it.
    pub fn squares(self, side: usize) -> usize {
        (self.rows as usize).div_ceil(side) * (self.columns as usize).div_ceil(side)
    }
}

impl Layout<2> {
    /// Matrices, and where each begins, if the two operands have runs along different dimensions, which fill at least a quarter of the
    /// squares that cover them: else they are not worth their way through shared memory.
    pub fn transposed(&self, side: usize) -> Option<(Plane, Layout<2>)> {
        let run = |n: usize| (0..self.rank()).find(|&d| self.strides[n][d] == 1);
        let (rows, columns) = (run(0)?, run(1)?);
        if rows == columns || self.strides[0][columns] == 1 || self.strides[1][rows] == 1 {
            return None;
        }
        let (x_pitch, y_pitch) = (self.strides[0][columns], self.strides[1][rows]);
        let plane = Plane { rows: self.extents[rows], columns: self.extents[columns], x_pitch, y_pitch };
        if (plane.rows * plane.columns) as usize * 4 < plane.squares(side) * side * side {
            return None;
        }
        let mut batch = *self;
        batch.numel /= plane.rows * plane.columns;
        for d in [rows, columns] {
            batch.extents[d] = 1;
        }
        Some((plane, batch))
    }
}

impl<const N: usize> Layout<N> {
    /// Elements of each operand.
    pub fn numel(&self) -> usize {
        self.numel as usize
    }
    /// Dimensions that are left.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }
    /// The extent of one, the outermost first, and each operand's stride along it.
    pub fn dimension(&self, d: usize) -> (i64, [i64; N]) {
        (self.extents[d], self.strides.map(|strides| strides[d]))
    }
    /// Of operands that have one shape.
    #[track_caller]
    pub fn of(xs: [&Tensor; N]) -> Self {
        let dims = |d: usize| xs[0].dims()[d];
        let strides = |d: usize| xs.map(|x| x.layout().strides[d] as i64);
        // Neighbours that lie together in every operand are one dimension.
        let mut joined: SmallVec<[(i64, [i64; N]); DIMS]> = SmallVec::new();
        for d in 0..xs[0].rank() {
            let (extent, strides) = (dims(d) as i64, strides(d));
            match joined.last_mut() {
                _ if extent == 1 => {}
                Some((before, outer)) if (0..N).all(|n| outer[n] == strides[n] * extent) => {
                    (*before, *outer) = (*before * extent, strides);
                }
                _ => joined.push((extent, strides)),
            }
        }
        if joined.len() > DIMS {
            fail!(Shape, "cuda", "{} of strides that cannot be joined into {DIMS} dimensions", xs[0].shape());
        }
        let mut layout = Layout {
            numel: xs[0].numel() as i64,
            rank: joined.len() as i32,
            placement: Placement::Apart,
            extents: [1; DIMS],
            strides: [[0; DIMS]; N],
        };
        for (d, (extent, strides)) in joined.iter().enumerate() {
            layout.extents[d] = *extent;
            (0..N).for_each(|n| layout.strides[n][d] = strides[n]);
        }
        let runs = joined.len() <= 1 && layout.strides.iter().all(|s| joined.is_empty() || s[0] == 1);
        let aligned = xs.iter().all(|x| crate::memory::address(x) % 16 == 0);
        if runs && aligned {
            layout.placement = Placement::InARun;
        }
        layout
    }
    /// Says so if rows lie in chunks of as many elements as the widest operand has in 16 bytes; those of all operands but the last may also
    /// be one number again and again.
    pub fn in_chunks(mut self, xs: [&Tensor; N]) -> Self {
        let Some(last) = self.rank().checked_sub(1).filter(|_| self.placement == Placement::Apart) else { return self };
        let length = 16 / xs.iter().map(|x| x.dtype().size()).max().unwrap_or(1);
        let fits = |n: usize| match self.strides[n][last] {
            0 => n + 1 < N,
            1 => {
                let whole = |stride: &i64| stride % length as i64 == 0;
                let bytes = (length * xs[n].dtype().size()) as u64;
                self.strides[n][..last].iter().all(whole) && crate::memory::address(xs[n]).is_multiple_of(bytes)
            }
            _ => false,
        };
        if self.extents[last] % length as i64 == 0 && (0..N).all(fits) {
            self.placement = Placement::InChunks;
        }
        self
    }
}
