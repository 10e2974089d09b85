//! Reading by index.

use super::{IndexError, check_indices};
use crate::cpu::parallel::*;

/// Elements per task, at least.
const GRAIN: usize = 1 << 13;

/// `y[o, j, i] = x[o, indices[o, j, i], i]`, for `x [outer, n, inner]` and `indices`, `y [outer, m, inner]`.
///
/// # Errors
/// The first index that is not in `0..n`; `y` is untouched.
///
/// # Panics
/// If a slice has not the length that its shape says.
pub fn gather<T: Copy + Send + Sync>(
    (outer, n, inner): (usize, usize, usize),
    m: usize,
    x: &[T],
    indices: &[i64],
    y: &mut [T],
) -> Result<(), IndexError> {
    assert_eq!(x.len(), outer * n * inner, "input length");
    assert_eq!((indices.len(), y.len()), (outer * m * inner, outer * m * inner), "index and output lengths");
    check_indices(indices, n)?;
    if y.is_empty() {
        return Ok(());
    }
    let rows = y.par_chunks_mut(inner).zip(indices.par_chunks(inner)).enumerate();
    rows.with_min_len(GRAIN.div_ceil(inner)).for_each(|(row, (y, indices))| {
        let x = &x[row / m * n * inner..][..n * inner];
        for (i, (y, &index)) in y.iter_mut().zip(indices).enumerate() {
            *y = x[index as usize * inner + i];
        }
    });
    Ok(())
}

/// `y[o, j, i] = x[o, indices[j], i]`, for `x [outer, n, inner]`, `indices [m]` and `y [outer, m, inner]`.
///
/// # Errors
/// The first index that is not in `0..n`; `y` is untouched.
///
/// # Panics
/// If a slice has not the length that its shape says.
pub fn index_select<T: Copy + Send + Sync>(
    (outer, n, inner): (usize, usize, usize),
    x: &[T],
    indices: &[i64],
    y: &mut [T],
) -> Result<(), IndexError> {
    let m = indices.len();
    assert_eq!(x.len(), outer * n * inner, "input length");
    assert_eq!(y.len(), outer * m * inner, "output length");
    check_indices(indices, n)?;
    if y.is_empty() {
        return Ok(());
    }
    y.par_chunks_mut(inner).enumerate().with_min_len(GRAIN.div_ceil(inner)).for_each(|(row, y)| {
        let from = row / m * n + indices[row % m] as usize;
        if inner == 1 { y[0] = x[from] } else { y.copy_from_slice(&x[from * inner..][..inner]) }
    });
    Ok(())
}
