//! Bytes on their way to the card and back.

use crate::cuda::{Cuda, HostMemory};
use crate::driver::explain;
use cudarc::driver::{result, sys};
use ferrograd_tensor::Result;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Slots for each way, and bytes of each slot.
const SLOTS_UP: usize = 32;
const SLOTS_DOWN: usize = 16;
const SLOT: usize = 256 << 10;

/// Pinned memory, which the card reads and writes by itself: with other memory the driver copies first, and may wait for the
/// stream.
///
/// What goes up goes through a ring, and the host goes on meanwhile. It has a stream of its own, so that the next batch
/// travels while the card still computes on this one. What comes down is waited for; of its slots, the first are emptied while
/// the others fill.
pub struct Staging {
    pub stream: sys::CUstream,
    up: Mutex<Ring>,
    down: Mutex<Vec<Slot>>,
}

struct Ring {
    slots: Vec<Slot>,
    next: usize,
}

struct Slot {
    memory: HostMemory<u8>,
    /// Behind the last copy from or to here.
    done: sys::CUevent,
}

impl Staging {
    /// The calling thread's card is the one.
    pub fn new() -> Result<Staging> {
        let failed = |e| explain("pinned memory", e);
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed)?;
        let slot = |_| {
            // SAFETY: memory of the host that is never freed, and written before it is read.
            let memory = unsafe { result::malloc_host(SLOT, 0) }.map_err(failed)?;
            let done = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(failed)?;
            Ok(Slot { memory: HostMemory(memory.cast()), done })
        };
        let slots = |count| (0..count).map(slot).collect::<Result<Vec<Slot>>>();
        let up = Ring { slots: slots(SLOTS_UP)?, next: 0 };
        Ok(Staging { stream, up: Mutex::new(up), down: Mutex::new(slots(SLOTS_DOWN)?) })
    }
}

fn lock<T>(slots: &Mutex<T>) -> MutexGuard<'_, T> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cuda {
    /// Copies the bytes to the card in the order of a stream, and gives the event behind the copy. They have been taken when it
    /// returns. It waits only where the whole ring is on its way.
    ///
    /// # Safety
    /// In the order of the stream there is room for them at `address`.
    #[track_caller]
    pub(crate) unsafe fn stage(
        &self,
        mut address: sys::CUdeviceptr,
        bytes: &[u8],
        stream: sys::CUstream,
    ) -> sys::CUevent {
        let mut ring = lock(&self.staging.up);
        let mut last = std::ptr::null_mut();
        for chunk in bytes.chunks(SLOT) {
            let next = ring.next;
            ring.next = (next + 1) % SLOTS_UP;
            let Slot { memory, done } = &ring.slots[next];
            // SAFETY: the event and the memory live as long as the card. The slot has room for the chunk, and nobody else has it:
            // its last copy is done.
            let copied = unsafe {
                result::event::query(*done).or_else(|_| result::event::synchronize(*done)).and_then(|()| {
                    memory.0.copy_from_nonoverlapping(chunk.as_ptr(), chunk.len());
                    let staged = std::slice::from_raw_parts(memory.0, chunk.len());
                    result::memcpy_htod_async(address, staged, stream)?;
                    result::event::record(*done, stream)
                })
            };
            copied.unwrap_or_else(|e| self.broken("upload", e));
            address += chunk.len() as u64;
            last = *done;
        }
        last
    }

    /// Copies what lies at `address` to `bytes`, behind all that the card's stream has to do; they are there when it returns.
    ///
    /// # Safety
    /// There are so many.
    #[track_caller]
    pub(crate) unsafe fn fetch(&self, bytes: &mut [u8], mut address: sys::CUdeviceptr) {
        let slots = lock(&self.staging.down);
        for window in bytes.chunks_mut(SLOTS_DOWN * SLOT) {
            for (chunk, Slot { memory, done }) in window.chunks(SLOT).zip(slots.iter()) {
                // SAFETY: the event and the memory live as long as the card; the slot has room for the chunk, and nobody else has it:
                // the slots are locked, and what was in this one has been taken out.
                let asked = unsafe {
                    let slot = std::slice::from_raw_parts_mut(memory.0, chunk.len());
                    result::memcpy_dtoh_async(slot, address, self.stream)
                        .and_then(|()| result::event::record(*done, self.stream))
                };
                asked.unwrap_or_else(|e| self.broken("download", e));
                address += chunk.len() as u64;
            }
            for (chunk, Slot { memory, done }) in window.chunks_mut(SLOT).zip(slots.iter()) {
                // SAFETY: as above, and behind the copy, which has filled as much of the slot.
                let copied = unsafe {
                    result::event::synchronize(*done)
                        .map(|()| memory.0.copy_to_nonoverlapping(chunk.as_mut_ptr(), chunk.len()))
                };
                copied.unwrap_or_else(|e| self.broken("download", e));
            }
        }
    }
}
