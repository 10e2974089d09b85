//! Loops that the threads of the pool share.
//!
//! The same words as in [rayon](https://docs.rs/rayon), which does the work: `y.par_chunks_mut(n).zip(x.par_chunks(n))
//! .for_each(…)`. But here every loop ends in one function, [`run`], which knows its body as a `dyn Fn(usize)`: rayon's
//! own iterators are compiled anew, splitting and stealing and all, for every loop and type, and were most of what there
//! was to compile. A piece of work is thousands of elements, so that the call costs nothing.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Mutex;

/// `body(i)` for each `i` below `n`; no task of the pool has fewer than `min` or more than `max` of them.
fn run(n: usize, (min, max): (usize, usize), body: &(dyn Fn(usize) + Sync)) {
    use rayon::prelude::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
    IntoParallelIterator::into_par_iter(0..n).with_min_len(min).with_max_len(max).for_each(body);
}

/// Pieces of work by number.
///
/// # Safety
/// For different numbers below `count`, which is always the same, `get` must return what can be used at the same time by
/// different threads.
pub unsafe trait Pieces: Sync + Sized {
    /// One piece.
    type Item;
    /// How many there are.
    fn count(&self) -> usize;
    /// Piece `i`.
    ///
    /// # Safety
    /// `i` is below `count`, and each is asked for at most once.
    unsafe fn get(&self, i: usize) -> Self::Item;
    /// The least and the most pieces of one task.
    fn limits(&self) -> (usize, usize) {
        (1, usize::MAX)
    }

    /// Pairs of pieces with the same number, as many as the shorter has.
    fn zip<B: Pieces>(self, other: B) -> Zip<Self, B> {
        Zip(self, other)
    }
    /// With their numbers.
    fn enumerate(self) -> Enumerate<Self> {
        Enumerate(self)
    }
    /// No task has fewer than `min` pieces.
    fn with_min_len(self, min: usize) -> Limited<Self> {
        let (_, max) = self.limits();
        Limited(self, (min, max))
    }
    /// No task has more than `max` pieces.
    fn with_max_len(self, max: usize) -> Limited<Self> {
        let (min, _) = self.limits();
        Limited(self, (min, max))
    }
    /// Calls `f` with every piece.
    fn for_each(self, f: impl Fn(Self::Item) + Sync) {
        // SAFETY: `run` calls its body once for each number below `count`.
        run(self.count(), self.limits(), &|i| f(unsafe { self.get(i) }));
    }
    /// What `f` makes of the pieces, in order.
    fn map_to_vec<R: Send>(self, f: impl Fn(Self::Item) -> R + Sync) -> Vec<R> {
        let mut results: Vec<Option<R>> = (0..self.count()).map(|_| None).collect();
        let limits = self.limits();
        Limited(results.par_iter_mut().zip(self), limits).for_each(|(result, piece)| *result = Some(f(piece)));
        results.into_iter().map(|r| r.expect("every piece was done")).collect()
    }
}

/// See [`Pieces::zip`].
pub struct Zip<A, B>(A, B);
// SAFETY: each of the two keeps the promise.
unsafe impl<A: Pieces, B: Pieces> Pieces for Zip<A, B> {
    type Item = (A::Item, B::Item);
    fn count(&self) -> usize {
        self.0.count().min(self.1.count())
    }
    unsafe fn get(&self, i: usize) -> Self::Item {
        // SAFETY: the caller's promise.
        unsafe { (self.0.get(i), self.1.get(i)) }
    }
    fn limits(&self) -> (usize, usize) {
        let ((min, max), (other_min, other_max)) = (self.0.limits(), self.1.limits());
        (min.max(other_min), max.min(other_max))
    }
}

/// See [`Pieces::enumerate`].
pub struct Enumerate<A>(A);
// SAFETY: the inner one keeps the promise.
unsafe impl<A: Pieces> Pieces for Enumerate<A> {
    type Item = (usize, A::Item);
    fn count(&self) -> usize {
        self.0.count()
    }
    unsafe fn get(&self, i: usize) -> Self::Item {
        // SAFETY: the caller's promise.
        (i, unsafe { self.0.get(i) })
    }
    fn limits(&self) -> (usize, usize) {
        self.0.limits()
    }
}

/// See [`Pieces::with_min_len`].
pub struct Limited<A>(A, (usize, usize));
// SAFETY: the inner one keeps the promise.
unsafe impl<A: Pieces> Pieces for Limited<A> {
    type Item = A::Item;
    fn count(&self) -> usize {
        self.0.count()
    }
    unsafe fn get(&self, i: usize) -> Self::Item {
        // SAFETY: the caller's promise.
        unsafe { self.0.get(i) }
    }
    fn limits(&self) -> (usize, usize) {
        self.1
    }
}

/// Chunks of a slice; see [`ParallelSlice::par_chunks`].
pub struct Chunks<'a, T>(&'a [T], usize);
// SAFETY: shared references.
unsafe impl<'a, T: Sync> Pieces for Chunks<'a, T> {
    type Item = &'a [T];
    fn count(&self) -> usize {
        self.0.len().div_ceil(self.1)
    }
    unsafe fn get(&self, i: usize) -> &'a [T] {
        let start = i * self.1;
        &self.0[start..self.0.len().min(start + self.1)]
    }
}

/// Disjoint chunks of a slice; see [`ParallelSlice::par_chunks_mut`].
pub struct ChunksMut<'a, T> {
    data: *mut T,
    len: usize,
    size: usize,
    slice: PhantomData<&'a mut [T]>,
}
// SAFETY: threads take different chunks, which is sending them.
unsafe impl<T: Send> Sync for ChunksMut<'_, T> {}
// SAFETY: chunks with different numbers do not overlap.
unsafe impl<'a, T: Send> Pieces for ChunksMut<'a, T> {
    type Item = &'a mut [T];
    fn count(&self) -> usize {
        self.len.div_ceil(self.size)
    }
    unsafe fn get(&self, i: usize) -> &'a mut [T] {
        let start = i * self.size;
        assert!(start < self.len);
        // SAFETY: inside the slice, which is borrowed for `'a`; no other piece has this part of it, and this one is asked
        // for once.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), self.size.min(self.len - start)) }
    }
}

/// Disjoint elements of a slice; see [`ParallelSlice::par_iter_mut`].
pub struct IterMut<'a, T>(ChunksMut<'a, T>);
// SAFETY: elements with different numbers are different.
unsafe impl<'a, T: Send> Pieces for IterMut<'a, T> {
    type Item = &'a mut T;
    fn count(&self) -> usize {
        self.0.len
    }
    unsafe fn get(&self, i: usize) -> &'a mut T {
        // SAFETY: the caller's promise; a chunk has one element.
        unsafe { &mut self.0.get(i)[0] }
    }
}

/// Slices as pieces.
pub trait ParallelSlice<T> {
    /// Chunks of `size` elements, the last of what is left.
    fn par_chunks(&self, size: usize) -> Chunks<'_, T>;
    /// Chunks to write to.
    fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T>;
    /// Elements to write to.
    fn par_iter_mut(&mut self) -> IterMut<'_, T>;
}
impl<T> ParallelSlice<T> for [T] {
    #[track_caller]
    fn par_chunks(&self, size: usize) -> Chunks<'_, T> {
        assert!(size > 0, "a chunk has at least one element");
        Chunks(self, size)
    }
    #[track_caller]
    fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T> {
        assert!(size > 0, "a chunk has at least one element");
        ChunksMut { data: self.as_mut_ptr(), len: self.len(), size, slice: PhantomData }
    }
    fn par_iter_mut(&mut self) -> IterMut<'_, T> {
        IterMut(self.par_chunks_mut(1))
    }
}

/// Numbers and lists of tasks as pieces.
pub trait IntoPieces {
    /// What it becomes.
    type Pieces: Pieces;
    /// As pieces.
    fn into_par_iter(self) -> Self::Pieces;
}

/// Numbers; see [`IntoPieces`].
pub struct Numbers(Range<usize>);
// SAFETY: numbers.
unsafe impl Pieces for Numbers {
    type Item = usize;
    fn count(&self) -> usize {
        self.0.len()
    }
    unsafe fn get(&self, i: usize) -> usize {
        self.0.start + i
    }
}
impl IntoPieces for Range<usize> {
    type Pieces = Numbers;
    fn into_par_iter(self) -> Numbers {
        Numbers(self)
    }
}

/// A list's items; see [`IntoPieces`].
pub struct Items<T>(Vec<Mutex<Option<T>>>);
// SAFETY: an item is moved to the thread that takes it.
unsafe impl<T: Send> Pieces for Items<T> {
    type Item = T;
    fn count(&self) -> usize {
        self.0.len()
    }
    unsafe fn get(&self, i: usize) -> T {
        let item = self.0[i].lock().unwrap_or_else(|e| e.into_inner()).take();
        item.expect("each is asked for once")
    }
}
impl<T: Send> IntoPieces for Vec<T> {
    type Pieces = Items<T>;
    fn into_par_iter(self) -> Items<T> {
        Items(self.into_iter().map(|item| Mutex::new(Some(item))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_once_and_in_its_place() {
        for (len, size) in [(0, 3), (1, 3), (3, 3), (1000, 7), (1001, 1)] {
            let x: Vec<usize> = (0..len).collect();
            let mut y = vec![0; len];
            y.par_chunks_mut(size).zip(x.par_chunks(size)).enumerate().with_min_len(2).for_each(|(i, (y, x))| {
                assert_eq!(x[0], i * size);
                y.iter_mut().zip(x).for_each(|(y, x)| *y += 2 * x + 1);
            });
            assert!(y.iter().enumerate().all(|(i, &y)| y == 2 * i + 1));
            y.par_iter_mut().for_each(|y| *y = 0);
            assert!(y.iter().all(|&y| y == 0));
            let squares = (0..len).into_par_iter().with_max_len(1).map_to_vec(|i| i * i);
            assert!(squares.iter().enumerate().all(|(i, &s)| s == i * i) && squares.len() == len);
            let texts: Vec<String> = x.iter().map(usize::to_string).collect();
            assert_eq!(texts.clone().into_par_iter().map_to_vec(|t| t), texts);
        }
    }

    #[test]
    fn a_panic_comes_out() {
        let result = std::panic::catch_unwind(|| (0..100).into_par_iter().for_each(|i| assert!(i != 57)));
        assert!(result.is_err());
    }
}
