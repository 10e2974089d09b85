//! Walking over tensors of any strides in chunks that a slice kernel can take.

use crate::cpu::parallel::*;
use crate::shape::Dims;
use crate::storage::CpuBuffer;
use crate::{Layout, Tensor};
use bytemuck::Pod;
use std::ops::Range;

/// Elements a kernel sees at a time: operands that must be gathered stay in the first-level cache.
pub const CHUNK: usize = 4096;
/// Below this many elements one thread is faster than two.
pub const PARALLEL_FROM: usize = 32 * CHUNK / 4;

/// One operand: a layout with neighbouring dimensions merged where that is possible.
pub struct Source<'a, T> {
    data: &'a [T],
    offset: usize,
    dims: Dims,
    strides: Dims<isize>,
}

impl<'a, T: Pod> Source<'a, T> {
    /// The operand `x` whose storage holds `T`.
    pub fn new(x: &'a Tensor) -> Self {
        Self::from_parts(x.storage(), x.layout())
    }

    /// The elements of `layout` in `data`.
    pub fn from_parts(data: &'a [T], layout: &Layout) -> Self {
        let (dims, strides) = collapse(layout);
        Source { data, offset: layout.offset, dims, strides }
    }

    /// Elements `range` if they lie together.
    pub fn direct(&self, range: &Range<usize>) -> Option<&'a [T]> {
        // No dimension is left of a single element.
        let together = self.dims.is_empty() || self.dims.len() == 1 && self.strides[0] == 1;
        together.then(|| &self.data[self.offset + range.start..self.offset + range.end])
    }

    /// Room for [`chunk`](Source::chunk) to gather `n` elements: none if they lie together.
    pub fn scratch(&self, n: usize) -> Vec<T> {
        vec![T::zeroed(); if self.direct(&(0..0)).is_some() { 0 } else { n }]
    }

    /// Elements `range` in row-major order: borrowed if they lie together, else gathered into `scratch`.
    pub fn chunk<'s>(&'s self, range: Range<usize>, scratch: &'s mut [T]) -> &'s [T] {
        if let Some(run) = self.direct(&range) {
            return run;
        }
        let out = &mut scratch[..range.len()];
        walk(&self.dims, &self.strides, self.offset, range.clone(), |at, start, len, stride| {
            let out = &mut out[at..at + len];
            match stride {
                1 => out.copy_from_slice(&self.data[start..start + len]),
                0 => out.fill(self.data[start]),
                _ => {
                    for (i, slot) in out.iter_mut().enumerate() {
                        *slot = self.data[(start as isize + i as isize * stride) as usize];
                    }
                }
            }
        });
        &scratch[..range.len()]
    }
}

/// Merges neighbouring dimensions that one stride describes and drops those of extent 1.
fn collapse(layout: &Layout) -> (Dims, Dims<isize>) {
    let (mut dims, mut strides) = (Dims::<usize>::new(), Dims::<isize>::new());
    if layout.numel() == 0 {
        // The products of the other extents may overflow.
        return (Dims::from_slice(&[0]), Dims::from_slice(&[1]));
    }
    for (&n, &s) in layout.shape.iter().zip(&layout.strides) {
        if n == 1 {
            continue;
        }
        match (dims.last_mut(), strides.last_mut()) {
            (Some(last), Some(stride)) if *stride == s * n as isize => {
                *last *= n;
                *stride = s;
            }
            _ => {
                dims.push(n);
                strides.push(s);
            }
        }
    }
    (dims, strides)
}

/// Calls `f(position in the range, storage index, run length, stride)` for each run along the last dimension.
fn walk(
    dims: &[usize],
    strides: &[isize],
    offset: usize,
    range: Range<usize>,
    mut f: impl FnMut(usize, usize, usize, isize),
) {
    let last = dims.len() - 1;
    let (inner, stride) = (dims[last], strides[last]);
    let mut index: Dims = dims.iter().map(|_| 0).collect();
    let mut rest = range.start;
    for d in (0..=last).rev() {
        index[d] = rest % dims[d];
        rest /= dims[d];
    }
    let mut at = 0;
    while at < range.len() {
        let start = offset as isize + index.iter().zip(strides).map(|(&i, &s)| i as isize * s).sum::<isize>();
        let len = (inner - index[last]).min(range.len() - at);
        f(at, start as usize, len, stride);
        at += len;
        index[last] = 0;
        for d in (0..last).rev() {
            index[d] += 1;
            if index[d] < dims[d] {
                break;
            }
            index[d] = 0;
        }
    }
}

/// Writes `src` (row-major) into the elements of `layout` in `dst`.
pub fn scatter<T: Pod>(dst: &mut [T], layout: &Layout, src: &[T]) {
    if src.is_empty() {
        return;
    }
    let (dims, strides) = collapse(layout);
    if dims.is_empty() {
        dst[layout.offset] = src[0];
        return;
    }
    walk(&dims, &strides, layout.offset, 0..src.len(), |at, start, len, stride| match stride {
        1 => dst[start..start + len].copy_from_slice(&src[at..at + len]),
        _ => {
            for (i, &v) in src[at..at + len].iter().enumerate() {
                dst[(start as isize + i as isize * stride) as usize] = v;
            }
        }
    });
}

/// A new buffer whose chunk `range` is written by `kernel(range, chunk)`, in parallel when it is worth it.
pub fn fill_chunks<U: Pod + Send>(n: usize, kernel: impl Fn(Range<usize>, &mut [U]) + Sync) -> CpuBuffer {
    let mut buffer = CpuBuffer::scratch::<U>(n);
    for_chunks(buffer.as_mut_slice::<U>(), kernel);
    buffer
}

/// Calls `kernel(range, chunk)` for each chunk of `out`, in parallel when it is worth it.
pub fn for_chunks<U: Send>(out: &mut [U], kernel: impl Fn(Range<usize>, &mut [U]) + Sync) {
    if out.len() < PARALLEL_FROM {
        for (i, chunk) in out.chunks_mut(CHUNK).enumerate() {
            kernel(i * CHUNK..i * CHUNK + chunk.len(), chunk);
        }
        return;
    }
    out.par_chunks_mut(CHUNK).enumerate().with_min_len(4).for_each(|(i, chunk)| {
        kernel(i * CHUNK..i * CHUNK + chunk.len(), chunk);
    });
}

/// A new buffer of `kernel(a, out)` over the elements of `a`.
pub fn map1<T: Pod + Send + Sync, U: Pod + Send>(a: &Tensor, kernel: impl Fn(&[T], &mut [U]) + Sync) -> CpuBuffer {
    let source = Source::<T>::new(a);
    fill_chunks(a.numel(), |range, out| {
        if let Some(a) = source.direct(&range) {
            return kernel(a, out);
        }
        let mut scratch = [T::zeroed(); CHUNK];
        kernel(source.chunk(range, &mut scratch), out)
    })
}

/// A new buffer of `kernel(a, b, out)` over the elements of `a` and `b`, which have one shape.
pub fn map2<T: Pod + Send + Sync, U: Pod + Send>(
    a: &Tensor,
    b: &Tensor,
    kernel: impl Fn(&[T], &[T], &mut [U]) + Sync,
) -> CpuBuffer {
    let (sa, sb) = (Source::<T>::new(a), Source::<T>::new(b));
    fill_chunks(a.numel(), |range, out| {
        if let (Some(a), Some(b)) = (sa.direct(&range), sb.direct(&range)) {
            return kernel(a, b, out);
        }
        let (mut scratch_a, mut scratch_b) = ([T::zeroed(); CHUNK], [T::zeroed(); CHUNK]);
        kernel(sa.chunk(range.clone(), &mut scratch_a), sb.chunk(range, &mut scratch_b), out)
    })
}
