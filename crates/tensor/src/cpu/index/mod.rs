//! Reading and adding by index, along the middle dimension of `[outer, n, inner]`.
//!
//! Indices are `i64` in `0..n`. Each function checks all of them before it writes anything, and returns the first that is
//! out of range (negative ones too) as an [`IndexError`]: its position in the index list, and its value.
//!
//! Where several sources are added to one destination, they are added in their order, whatever the number of threads.

mod add;
mod select;
pub(super) mod tensors;

#[cfg(test)]
mod tests;

pub use add::{index_add, scatter_add};
pub use select::{gather, index_select};

use crate::cpu::parallel::*;

/// The first index out of range: its position in the index list, and its value.
pub type IndexError = (usize, i64);

/// All indices in `0..n`, or the first that is not.
pub fn check_indices(indices: &[i64], n: usize) -> Result<(), IndexError> {
    let bad = |i: &i64| usize::try_from(*i).map_or(true, |i| i >= n);
    let first = if indices.len() < 1 << 14 {
        indices.iter().position(bad)
    } else {
        const PART: usize = 1 << 12;
        let found = indices.par_chunks(PART).map_to_vec(|part| part.iter().position(bad));
        found.into_iter().enumerate().find_map(|(part, at)| Some(part * PART + at?))
    };
    match first {
        Some(position) => Err((position, indices[position])),
        None => Ok(()),
    }
}
