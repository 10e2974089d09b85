//! Splitting work over threads in a way that does not show in the result: the pieces depend on the sizes alone.

use super::math::Real;
use crate::cpu::parallel::*;

/// Fewer elements than this run on the calling thread: waking another costs more.
pub const PARALLEL_FROM: usize = 1 << 15;
/// About this many elements make one task.
pub const TASK: usize = 1 << 14;

/// How many rows of `n` elements make one task.
pub fn rows_per_task(n: usize) -> usize {
    (TASK / n.max(1)).max(1)
}

/// Calls `f(first_row, rows_of_y)` over `y = [rows, n]` in groups of whole rows, in parallel when there is much to do. `f`
/// must treat each row by itself.
pub fn for_rows<T: Send>(y: &mut [T], n: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    if y.is_empty() {
        return;
    }
    assert!(n > 0 && y.len().is_multiple_of(n), "{} elements are no rows of {n}", y.len());
    if y.len() < PARALLEL_FROM {
        return f(0, y);
    }
    let rows = rows_per_task(n);
    y.par_chunks_mut(rows * n).enumerate().for_each(|(i, y)| f(i * rows, y));
}

/// [`for_rows`] with two more outputs of one element per row; whoever has only one gives a `[(); rows]`, which is no memory. Rows may
/// be empty (`n` = 0) here: `f` is then called once.
pub fn for_rows_stats<T: Send, B: Send>(
    y: &mut [T],
    a: &mut [T],
    b: &mut [B],
    n: usize,
    f: impl Fn(usize, &mut [T], &mut [T], &mut [B]) + Sync + Send,
) {
    let count = a.len();
    assert!(b.len() == count && y.len() == count * n, "outputs disagree on the number of rows");
    if n == 0 || y.len() < PARALLEL_FROM {
        return f(0, y, a, b);
    }
    let rows = rows_per_task(n);
    y.par_chunks_mut(rows * n)
        .zip(a.par_chunks_mut(rows))
        .zip(b.par_chunks_mut(rows))
        .enumerate()
        .for_each(|(i, ((y, a), b))| f(i * rows, y, a, b));
}

/// `sum = x + residual`, then [`for_rows_stats`] with the rows of the sum, which are still in the cache: `f(rows of the sum, rows of
/// y, a, b)`.
pub fn for_sums_stats<T: Real, B: Send>(
    [x, residual]: [&[T]; 2],
    sum: &mut [T],
    (y, a, b): (&mut [T], &mut [T], &mut [B]),
    n: usize,
    f: impl Fn(&[T], &mut [T], &mut [T], &mut [B]) + Sync + Send,
) {
    let count = a.len();
    assert!(x.len() == count * n && residual.len() == x.len() && sum.len() == x.len(), "operands of different sizes");
    assert!(b.len() == count && y.len() == x.len(), "outputs disagree on the number of rows");
    let added = |row: usize, sum: &mut [T], y: &mut [T], a: &mut [T], b: &mut [B]| {
        let operands = x[row * n..].iter().zip(&residual[row * n..]);
        sum.iter_mut().zip(operands).for_each(|(sum, (&x, &residual))| *sum = x + residual);
        f(sum, y, a, b);
    };
    if n == 0 || y.len() < PARALLEL_FROM {
        return added(0, sum, y, a, b);
    }
    let rows = rows_per_task(n);
    let statistics = a.par_chunks_mut(rows).zip(b.par_chunks_mut(rows));
    let outputs = sum.par_chunks_mut(rows * n).zip(y.par_chunks_mut(rows * n)).zip(statistics);
    outputs.enumerate().for_each(|(i, ((sum, y), (a, b)))| added(i * rows, sum, y, a, b));
}

/// Calls `f(start, piece)` over pieces of about [`TASK`] elements of a slice whose elements are independent.
pub fn for_pieces<T: Send>(y: &mut [T], f: impl Fn(usize, &mut [T]) + Sync + Send) {
    for_rows(y, 1, f);
}

/// How many rows of `n` elements go into one partial column sum: the roundings of a sum down a column grow with it.
pub fn rows_per_partial(n: usize) -> usize {
    (TASK / n.max(1)).clamp(256, 1024)
}
