//! Packing buffers that a thread keeps, so that a product neither allocates nor faults pages in.

use bytemuck::{Pod, Zeroable};
use std::cell::RefCell;

/// One cache line: what buffers are made and aligned of.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line([u8; 64]);

// SAFETY: an array of bytes, and 64 bytes at alignment 64 leave no padding.
unsafe impl Zeroable for Line {}
// SAFETY: as above; any bytes are a valid value.
unsafe impl Pod for Line {}

thread_local! {
    /// A stack, because a thread that waits for its part of one product may be given a part of another.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// `len` zeros and what completes the last line.
pub fn lines<A: Pod>(len: usize) -> Vec<Line> {
    vec![Line([0; 64]); (len * size_of::<A>()).div_ceil(size_of::<Line>())]
}

/// Lends `len` elements of unspecified value, aligned to a cache line.
pub fn with<A: Pod, R>(len: usize, f: impl FnOnce(&mut [A]) -> R) -> R {
    let mut lines = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let need = (len * size_of::<A>()).div_ceil(size_of::<Line>());
    if lines.len() < need {
        // Grown by replacement: what an old buffer holds is not worth copying.
        lines = vec![Line([0; 64]); need.next_power_of_two()];
    }
    let result = f(&mut bytemuck::cast_slice_mut(&mut lines)[..len]);
    FREE.with_borrow_mut(|free| free.push(lines));
    result
}
