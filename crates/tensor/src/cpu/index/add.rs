//! Adding by index: the adjoints of [`index_select`](super::index_select) and [`gather`](super::gather).

use super::{IndexError, check_indices};
use crate::cpu::accumulate::Accumulate;
use crate::cpu::parallel::*;

/// Fewer elements than this are added by one thread.
const SERIAL: usize = 1 << 13;

/// `y[o, indices[j], i] += x[o, j, i]`, for `y [outer, n, inner]`, `indices [m]` and `x [outer, m, inner]`.
///
/// Each thread has a range of the destination's rows, reads all indices and takes those that are its own: each row meets
/// its sources in order. The ranges have about as many sources each. Integers wrap.
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
    let slices = y.par_chunks_mut(n * inner).zip(x.par_chunks(m * inner)).with_min_len(SERIAL.div_ceil(m * inner));
    let threads = rayon::current_num_threads().div_ceil(outer);
    // A table of many rows costs more to divide than the few sources to write to it.
    if m * inner < SERIAL || threads == 1 || n > m * inner / 8 {
        slices.for_each(|(y, x)| add_to_rows(inner, indices, x, 0, y));
        return Ok(());
    }
    let cuts = even_cuts(indices, n, threads);
    slices.for_each(|(mut y, x)| {
        let mut ranges = Vec::with_capacity(threads);
        for cut in cuts.windows(2) {
            ranges.push((cut[0], y.split_off_mut(..(cut[1] - cut[0]) * inner).expect("n rows")));
        }
        ranges.into_par_iter().with_max_len(1).for_each(|(first, y)| add_to_rows(inner, indices, x, first, y));
    });
    Ok(())
}

/// `0 = c₀ ≤ c₁ ≤ … = n`, so that between neighbours there are about equally many of the indices.
fn even_cuts(indices: &[i64], n: usize, parts: usize) -> Vec<usize> {
    let mut counts = vec![0usize; n];
    indices.iter().for_each(|&i| counts[i as usize] += 1);
    let (mut cuts, mut seen) = (vec![0], 0);
    for (row, &count) in counts.iter().enumerate() {
        if row > 0 && cuts.len() < parts && seen >= indices.len() * cuts.len() / parts {
            cuts.push(row);
        }
        seen += count;
    }
    cuts.push(n);
    cuts
}

/// Adds the sources that belong to the rows `first..` of the destination, which are `y`.
fn add_to_rows<T: Accumulate>(inner: usize, indices: &[i64], x: &[T], first: usize, y: &mut [T]) {
    for (&index, x) in indices.iter().zip(x.chunks_exact(inner)) {
        let Some(row) = (index as usize).checked_sub(first) else { continue };
        if let Some(y) = y.get_mut(row * inner..(row + 1) * inner) {
            add_row(y, x);
        }
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
