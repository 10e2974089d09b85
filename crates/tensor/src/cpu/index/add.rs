//! Adding by index: the adjoints of [`index_select`](super::index_select) and [`gather`](super::gather).

use super::{IndexError, check_indices};
use crate::cpu::accumulate::Accumulate;
use rayon::prelude::*;

/// Fewer elements than this are added by one thread.
const SERIAL: usize = 1 << 13;

/// `y[o, indices[j], i] += x[o, j, i]`, for `y [outer, n, inner]`, `indices [m]` and `x [outer, m, inner]`.
///
/// The indices are sorted (stably), so that each destination row has its sources side by side and in order, and different
/// rows can be written by different threads. Integers wrap.
///
/// # Errors
/// The first index that is not in `0..n`; `y` is untouched.
///
/// # Panics
/// If a slice has not the length that its shape says.
pub fn index_add<T: Accumulate>(
    (outer, n, inner): (usize, usize, usize),
    indices: &[i64],
    x: &[T],
    y: &mut [T],
) -> Result<(), IndexError> {
    let m = indices.len();
    assert_eq!(x.len(), outer * m * inner, "source length");
    assert_eq!(y.len(), outer * n * inner, "destination length");
    check_indices(indices, n)?;
    if x.is_empty() {
        return Ok(());
    }
    let slices = y.par_chunks_mut(n * inner).zip(x.par_chunks(m * inner));
    // One slice of narrow rows: sorting would cost more than adding.
    if x.len() < SERIAL || outer >= 16 || inner < 8 {
        slices.with_min_len(SERIAL.div_ceil(m * inner)).for_each(|(y, x)| {
            for (&index, x) in indices.iter().zip(x.chunks(inner)) {
                add_row(&mut y[index as usize * inner..][..inner], x);
            }
        });
    } else {
        let mut order: Vec<usize> = (0..m).collect();
        order.par_sort_by_key(|&j| indices[j]);
        slices.for_each(|(y, x)| add_sorted(inner, indices, &order, x, 0, y));
    }
    Ok(())
}

/// Adds the sources `order`, sorted by index, to the rows `first..` of the destination, which are `y`.
fn add_sorted<T: Accumulate>(inner: usize, indices: &[i64], order: &[usize], x: &[T], first: usize, y: &mut [T]) {
    let row = |j: usize| indices[order[j]] as usize;
    let half = order.len() / 2;
    if order.len() * inner >= SERIAL && half > 0 {
        // Cut between two rows, as near to the middle as there is a cut.
        let middle = row(half);
        let low = order.partition_point(|&j| (indices[j] as usize) < middle);
        let high = order.partition_point(|&j| (indices[j] as usize) <= middle);
        let cut = if low == 0 || (high < order.len() && high - half < half - low) { high } else { low };
        if cut < order.len() {
            let at = row(cut);
            let (y_left, y_right) = y.split_at_mut((at - first) * inner);
            rayon::join(
                || add_sorted(inner, indices, &order[..cut], x, first, y_left),
                || add_sorted(inner, indices, &order[cut..], x, at, y_right),
            );
            return;
        }
    }
    for &j in order {
        add_row(&mut y[(indices[j] as usize - first) * inner..][..inner], &x[j * inner..][..inner]);
    }
}

#[inline]
fn add_row<T: Accumulate>(y: &mut [T], x: &[T]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = y.plus(x));
}

/// `y[o, indices[o, j, i], i] += x[o, j, i]`, for `y [outer, n, inner]` and `indices`, `x [outer, m, inner]`. Integers wrap.
///
/// # Errors
/// The first index that is not in `0..n`; `y` is untouched.
///
/// # Panics
/// If a slice has not the length that its shape says.
pub fn scatter_add<T: Accumulate>(
    (outer, n, inner): (usize, usize, usize),
    m: usize,
    indices: &[i64],
    x: &[T],
    y: &mut [T],
) -> Result<(), IndexError> {
    let len = outer * m * inner;
    assert_eq!((indices.len(), x.len()), (len, len), "index and source lengths");
    assert_eq!(y.len(), outer * n * inner, "destination length");
    check_indices(indices, n)?;
    if x.is_empty() {
        return Ok(());
    }
    // Threads share the outer slices, and where those are few also blocks of destination rows: each block's thread reads
    // all indices of its slice and takes those that are its own. Either way each destination meets its sources in order.
    let threads = rayon::current_num_threads();
    let blocks = if len < 1 << 16 { 1 } else { threads.div_ceil(outer).min(n) };
    let rows = n.div_ceil(blocks);
    let slices = y.par_chunks_mut(n * inner).zip(indices.par_chunks(m * inner)).zip(x.par_chunks(m * inner));
    slices.with_min_len(SERIAL.div_ceil(m * inner)).for_each(|((y, indices), x)| {
        y.par_chunks_mut(rows * inner).enumerate().for_each(|(block, y)| {
            let first = block * rows;
            for (indices, x) in indices.chunks(inner).zip(x.chunks(inner)) {
                for (i, (&index, &x)) in indices.iter().zip(x).enumerate() {
                    // Below `first` the difference wraps to a huge number: not in this block either.
                    let at = (index as usize).wrapping_sub(first);
                    if at < rows {
                        let y = &mut y[at * inner + i];
                        *y = y.plus(x);
                    }
                }
            }
        });
    });
    Ok(())
}
