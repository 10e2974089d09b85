//! Bytes on their way to the card.

use crate::cuda::{Cuda, HostMemory};
use crate::driver::explain;
use cudarc::driver::{result, sys};
use ferrograd_tensor::Result;
use std::sync::{Mutex, PoisonError};

/// Slots of the ring, and bytes of each.
const SLOTS: usize = 32;
const SLOT: usize = 256 << 10;

/// A ring of pinned memory. From there the card fetches bytes by itself, while the host goes on: from other memory the driver
/// copies first, and may wait for the stream. Copies have a stream of their own, so that the next batch travels while the card
/// still computes on this one.
pub struct Staging {
    pub stream: sys::CUstream,
    ring: Mutex<Ring>,
}

struct Ring {
    slots: Vec<Slot>,
    next: usize,
}

struct Slot {
    memory: HostMemory<u8>,
    /// Behind the copy that was the last to leave from here.
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
        let slots = (0..SLOTS).map(slot).collect::<Result<_>>()?;
        Ok(Staging { stream, ring: Mutex::new(Ring { slots, next: 0 }) })
    }
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
        let mut ring = self.staging.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = std::ptr::null_mut();
        for chunk in bytes.chunks(SLOT) {
            let next = ring.next;
            ring.next = (next + 1) % SLOTS;
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
}
