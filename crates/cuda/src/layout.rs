//! Strides, as a kernel reads them (`kernels/layout.cuh`).

use ferrograd_tensor::{Tensor, fail};
use smallvec::SmallVec;

/// Most dimensions that are left once those that lie together are one.
const DIMS: usize = 10;

/// Shape and strides of `N` operands of one shape; the same as `Layout<N>` in `layout.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Layout<const N: usize> {
    numel: i64,
    rank: i32,
    /// Is every operand a run of memory that begins at a multiple of 16 bytes?
    vectors: i32,
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
            vectors: 0,
            extents: [1; DIMS],
            strides: [[0; DIMS]; N],
        };
        for (d, (extent, strides)) in joined.iter().enumerate() {
            layout.extents[d] = *extent;
            (0..N).for_each(|n| layout.strides[n][d] = strides[n]);
        }
        let runs = joined.len() <= 1 && layout.strides.iter().all(|s| joined.is_empty() || s[0] == 1);
        let aligned = xs.iter().all(|x| crate::memory::address(x) % 16 == 0);
        layout.vectors = (runs && aligned) as i32;
        layout
    }
}
