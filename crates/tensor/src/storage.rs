//! Memory: the buffer trait of every device, and the CPU's buffers, which come from a pool.
//!
//! A training step frees and asks for the same sizes again and again. Fresh memory from the operating system costs a
//! page fault per 4 KiB, which is most of the time of a large elementwise op; the pool hands the same pages out again.

use crate::cpu::threads;
use crate::fail;
use bytemuck::Pod;
use std::alloc::{Layout as AllocLayout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Mutex;

/// A device's memory that holds a tensor's elements.
pub trait Buffer: Any + Send + Sync {
    /// Its size.
    fn bytes(&self) -> usize;
    /// Where it lies on its device: two buffers that live at the same time and hold something differ in it.
    fn address(&self) -> usize;
    /// For the backend, which knows the concrete type.
    fn as_any(&self) -> &dyn Any;
    /// For the backend, which knows the concrete type.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// Every buffer starts at a multiple of this, a cache line and an AVX-512 register.
const ALIGN: usize = 64;
/// What a buffer of less than a cache line is aligned to, which the allocator does by itself.
const SMALL_ALIGN: usize = 16;
/// What lies in the buffer itself, such as a scalar: it needs no block of its own.
const INLINE: usize = 16;
/// A huge page, and the size from which blocks are made of them.
const HUGE_PAGE: usize = 2 << 20;
/// Below this size the allocator is fast and the pool only in the way.
const POOLED_FROM: usize = 16 << 10;
/// The pool keeps at most this much for later.
const POOL_LIMIT: usize = 1 << 30;

/// CPU memory: aligned to 64 bytes (of less, to 16), always initialised (to zero when fresh, to old values when reused).
pub struct CpuBuffer {
    place: Place,
    bytes: usize,
}

/// Where a buffer's elements are.
enum Place {
    /// At most [`INLINE`] bytes.
    Here(Inline),
    /// More: a block of [`capacity_for`] the buffer's bytes.
    Block(NonNull<u8>),
}

#[repr(align(16))]
struct Inline([u8; INLINE]);

// SAFETY: the buffer owns its memory, and access follows Rust's borrow rules through `&self` and `&mut self`.
unsafe impl Send for CpuBuffer {}
// SAFETY: as above; `&self` only reads.
unsafe impl Sync for CpuBuffer {}

#[derive(Default)]
struct Pool {
    /// Free blocks by capacity, as addresses.
    free: HashMap<usize, Vec<usize>>,
    held: usize,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

/// Rounds up so that similar sizes share blocks: to an eighth of the next lower power of two. `None` beyond
/// `isize::MAX`, the most that Rust allocates.
fn capacity_for(bytes: usize) -> Option<usize> {
    if bytes < POOLED_FROM {
        let granule = if bytes < ALIGN { SMALL_ALIGN } else { ALIGN };
        return Some(bytes.max(1).next_multiple_of(granule));
    }
    let granule = (1usize << (usize::BITS - 1 - bytes.leading_zeros())) / 8;
    bytes.checked_next_multiple_of(granule).filter(|&capacity| capacity <= isize::MAX as usize)
}

fn layout(capacity: usize) -> AllocLayout {
    let align = match capacity {
        HUGE_PAGE.. => HUGE_PAGE,
        ALIGN.. => ALIGN,
        _ => SMALL_ALIGN,
    };
    AllocLayout::from_size_align(capacity, align).expect("a buffer's size fits isize")
}

/// Zeroed memory, or null. Large blocks lie on huge pages where the system has them: a large product walks over more 4 KiB
/// pages than the CPU keeps translations of, and each page is a fault when it is first touched.
fn fresh(capacity: usize) -> *mut u8 {
    if capacity < HUGE_PAGE {
        // SAFETY: the layout's size is at least SMALL_ALIGN, so not zero.
        return unsafe { alloc_zeroed(layout(capacity)) };
    }
    // SAFETY: as above.
    let ptr = unsafe { alloc(layout(capacity)) };
    if !ptr.is_null() {
        #[cfg(target_os = "linux")]
        // SAFETY: this memory is ours, and the advice changes none of its contents. If it is not taken, nothing is lost.
        let _ = unsafe { rustix::mm::madvise(ptr.cast(), capacity, rustix::mm::Advice::LinuxHugepage) };
        // SAFETY: `capacity` bytes were allocated.
        unsafe { ptr.write_bytes(0, capacity) };
    }
    ptr
}

impl CpuBuffer {
    /// Memory for `n` elements of `T` with unspecified (but initialised) contents.
    #[track_caller]
    pub fn scratch<T: Pod>(n: usize) -> Self {
        Self::allocate::<T>(n, false)
    }
    /// Memory for `n` elements of `T`, all zero.
    #[track_caller]
    pub fn zeroed<T: Pod>(n: usize) -> Self {
        Self::allocate::<T>(n, true)
    }
    /// A copy of `values`.
    pub fn from_slice<T: Pod>(values: &[T]) -> Self {
        let mut buffer = Self::scratch::<T>(values.len());
        buffer.as_mut_slice().copy_from_slice(values);
        buffer
    }

    #[track_caller]
    fn allocate<T>(n: usize, zero: bool) -> Self {
        // Whatever runs on the CPU needs memory first.
        threads::start();
        let size = n.checked_mul(size_of::<T>()).and_then(|bytes| Some((bytes, capacity_for(bytes)?)));
        let Some((bytes, capacity)) = size else {
            fail!(Value, "allocate", "{n} elements of {} bytes are more than memory can address", size_of::<T>())
        };
        if bytes <= INLINE {
            return CpuBuffer { place: Place::Here(Inline([0; INLINE])), bytes };
        }
        if capacity >= POOLED_FROM {
            let mut pool = POOL.lock().unwrap_or_else(|e| e.into_inner());
            let pool = pool.get_or_insert_default();
            if let Some(address) = pool.free.get_mut(&capacity).and_then(Vec::pop) {
                pool.held -= capacity;
                let ptr = NonNull::new(std::ptr::with_exposed_provenance_mut(address)).expect("the pool holds no null");
                let mut buffer = CpuBuffer { place: Place::Block(ptr), bytes };
                if zero {
                    buffer.as_mut_slice::<u8>().fill(0);
                }
                return buffer;
            }
        }
        let ptr = match NonNull::new(fresh(capacity)) {
            Some(ptr) => ptr,
            None if capacity >= POOLED_FROM => fail!(Value, "allocate", "no memory for {bytes} bytes"),
            // Nothing left at all: no error could be put together either.
            None => handle_alloc_error(layout(capacity)),
        };
        CpuBuffer { place: Place::Block(ptr), bytes }
    }

    /// The elements. Their type may want an alignment of 16 bytes at most; more does not compile.
    pub fn as_slice<T: Pod>(&self) -> &[T] {
        const { assert!(align_of::<T>() <= SMALL_ALIGN) };
        let ptr = match &self.place {
            Place::Here(inline) => inline.0.as_ptr(),
            Place::Block(ptr) => ptr.as_ptr(),
        };
        // SAFETY: `ptr` is valid for `bytes` initialised bytes, aligned to 16 at least, and any bits are a valid `T: Pod`.
        unsafe { std::slice::from_raw_parts(ptr.cast(), self.bytes / size_of::<T>()) }
    }
    /// The elements, to write.
    pub fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        const { assert!(align_of::<T>() <= SMALL_ALIGN) };
        let ptr = match &mut self.place {
            Place::Here(inline) => inline.0.as_mut_ptr(),
            Place::Block(ptr) => ptr.as_ptr(),
        };
        // SAFETY: as in `as_slice`, and `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(ptr.cast(), self.bytes / size_of::<T>()) }
    }
}

impl Drop for CpuBuffer {
    fn drop(&mut self) {
        let Place::Block(ptr) = self.place else { return };
        let capacity = capacity_for(self.bytes).expect("it was allocated");
        if capacity >= POOLED_FROM {
            let mut pool = POOL.lock().unwrap_or_else(|e| e.into_inner());
            let pool = pool.get_or_insert_default();
            if pool.held + capacity <= POOL_LIMIT {
                pool.held += capacity;
                pool.free.entry(capacity).or_default().push(ptr.as_ptr().expose_provenance());
                return;
            }
        }
        // SAFETY: allocated in `allocate` with the same layout, and not in the pool.
        unsafe { dealloc(ptr.as_ptr(), layout(capacity)) }
    }
}

impl Buffer for CpuBuffer {
    fn bytes(&self) -> usize {
        self.bytes
    }
    fn address(&self) -> usize {
        self.as_slice::<u8>().as_ptr().addr()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Returns the memory that the CPU pool keeps for later to the operating system.
pub fn release_cpu_pool() {
    let pool = POOL.lock().unwrap_or_else(|e| e.into_inner()).take();
    for (capacity, blocks) in pool.unwrap_or_default().free {
        for address in blocks {
            // SAFETY: blocks enter the pool in `drop`, allocated with this layout, and leave it once.
            unsafe { dealloc(std::ptr::with_exposed_provenance_mut(address), layout(capacity)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catch;

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!([1, 16, 17, 63, 64, 65].map(|n| capacity_for(n).unwrap()), [16, 16, 32, 64, 64, 128]);
        assert_eq!(capacity_for(isize::MAX as usize), None);
        assert_eq!(capacity_for(usize::MAX - 1), None);
        for n in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 4 + 1] {
            let error = catch(|| CpuBuffer::scratch::<f32>(n)).err().expect("an error");
            assert_eq!(
                error.to_string(),
                format!("allocate: {n} elements of 4 bytes are more than memory can address")
            );
        }
    }

    #[test]
    fn small_buffers_move_with_their_elements() {
        for n in 0..12 {
            let values: Vec<u16> = (0..n).collect();
            let buffers: Vec<CpuBuffer> = (0..3).map(|_| CpuBuffer::from_slice(&values)).collect();
            let moved: Vec<Box<CpuBuffer>> = buffers.into_iter().map(Box::new).collect();
            for mut buffer in moved {
                assert_eq!(buffer.as_slice::<u16>(), values);
                buffer.as_mut_slice::<u16>().fill(7);
                assert!(buffer.as_slice::<u16>().iter().all(|&v| v == 7) && buffer.bytes() == 2 * n as usize);
            }
        }
    }

    #[test]
    fn buffers_are_aligned_and_reused() {
        for n in [0, 1, 4, 5, 7, 4096, 100_000] {
            let mut a = CpuBuffer::zeroed::<f32>(n);
            assert_eq!(a.as_slice::<f32>().len(), n);
            let align = if 4 * n < ALIGN { SMALL_ALIGN } else { ALIGN };
            assert_eq!(a.as_slice::<f32>().as_ptr() as usize % align, 0);
            a.as_mut_slice::<f32>().fill(3.0);
            drop(a);
            assert!(CpuBuffer::zeroed::<f32>(n).as_slice::<f32>().iter().all(|&v| v == 0.0));
        }
    }
}
