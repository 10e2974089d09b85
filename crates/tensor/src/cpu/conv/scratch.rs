//! Per-thread working memory, kept from call to call so that a training loop does not fault its pages in again.

use std::cell::RefCell;

thread_local! {
    static SCRATCH: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Above this many bytes, the buffer is freed after use.
const KEEP: usize = 16 << 20;

/// Calls `f` with `len` elements of unspecified content.
///
/// The buffer is taken out of its cell meanwhile: a thread that steals another task while it waits inside `f` finds the
/// cell empty and allocates, it does not share.
pub(super) fn with_scratch<T: bytemuck::Pod, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let mut buffer = SCRATCH.with(|cell| std::mem::take(&mut *cell.borrow_mut()));
    let words = (len * size_of::<T>()).div_ceil(8);
    if buffer.len() < words {
        buffer = vec![0; words];
    }
    let result = f(&mut bytemuck::cast_slice_mut(&mut buffer)[..len]);
    if buffer.len() * 8 <= KEEP {
        SCRATCH.with(|cell| {
            let mut kept = cell.borrow_mut();
            if kept.len() < buffer.len() {
                *kept = buffer;
            }
        });
    }
    result
}
