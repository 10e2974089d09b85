//! Working memory that a thread keeps, so that a kernel neither allocates nor faults pages in.

use crate::storage::CpuBuffer;
use bytemuck::Pod;
use std::cell::RefCell;

thread_local! {
    /// A stack, because a thread that waits for its part of one kernel may be given a part of another.
    static FREE: RefCell<Vec<CpuBuffer>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` elements of unspecified value, aligned to a cache line if they fill one.
pub fn with_scratch<A: Pod, R>(len: usize, f: impl FnOnce(&mut [A]) -> R) -> R {
    let need = len * size_of::<A>();
    let kept = FREE.with_borrow_mut(Vec::pop).filter(|buffer| buffer.as_slice::<u8>().len() >= need);
    let mut buffer = kept.unwrap_or_else(|| CpuBuffer::scratch::<u8>(need.next_power_of_two()));
    let result = f(&mut buffer.as_mut_slice::<A>()[..len]);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}
