//! The memory of a graph.

use crate::cuda::Cuda;
use cudarc::driver::sys::CUdeviceptr;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Blocks begin at multiples of this, as the driver's own do.
const ALIGN: u64 = 512;
/// What is asked of the driver at least.
const SEGMENT: u64 = 8 << 20;

/// Memory that a graph's kernels work in. Their addresses are fixed when the step is captured, so what the step asks for and
/// gives back then comes from here, and nobody else gets it while the graph lives. A block that is given back serves the next
/// request: the kernels run one after another, in the order of the capture, at every replay.
pub struct Arena {
    cuda: &'static Cuda,
    ranges: Mutex<Ranges>,
}

#[derive(Default)]
struct Ranges {
    /// Is the step still being captured? Afterwards, addresses are for good.
    open: bool,
    /// What the driver gave; none continues another.
    segments: BTreeMap<CUdeviceptr, u64>,
    /// Ranges by their beginnings, neighbours joined.
    free: BTreeMap<CUdeviceptr, u64>,
    live: BTreeMap<CUdeviceptr, u64>,
}

impl Arena {
    pub fn new(cuda: &'static Cuda) -> Arena {
        Arena { cuda, ranges: Mutex::new(Ranges { open: true, ..Ranges::default() }) }
    }
    fn ranges(&self) -> MutexGuard<'_, Ranges> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory for so many bytes, not 0: the smallest free range that has them.
    #[track_caller]
    pub fn allocate(&self, bytes: usize) -> CUdeviceptr {
        let bytes = (bytes as u64).next_multiple_of(ALIGN);
        let mut ranges = self.ranges();
        let fits = ranges.free.iter().filter(|&(_, &size)| size >= bytes).min_by_key(|&(_, &size)| size);
        let (start, size) = match fits {
            Some((&start, &size)) => (start, size),
            None => {
                let size = bytes.max(SEGMENT);
                let start = self.cuda.pool_allocate(size as usize, self.cuda.stream);
                ranges.segments.insert(start, size);
                (start, size)
            }
        };
        ranges.free.remove(&start);
        if size > bytes {
            ranges.free.insert(start + bytes, size - bytes);
        }
        ranges.live.insert(start, bytes);
        start
    }

    /// The block is not needed any more.
    pub fn release(&self, address: CUdeviceptr) {
        let mut ranges = self.ranges();
        let mut bytes = ranges.live.remove(&address).expect("it was allocated here");
        if !ranges.open {
            return;
        }
        let mut start = address;
        if !ranges.segments.contains_key(&(start + bytes)) {
            bytes += ranges.free.remove(&(start + bytes)).unwrap_or(0);
        }
        if !ranges.segments.contains_key(&start)
            && let Some((&before, &size)) = ranges.free.range(..start).next_back()
            && before + size == start
        {
            ranges.free.remove(&before);
            (start, bytes) = (before, bytes + size);
        }
        ranges.free.insert(start, bytes);
    }

    /// The capture is over.
    pub fn close(&self) {
        self.ranges().open = false;
    }
    /// Sizes of the blocks that are still held, but for those at these addresses.
    pub fn held_besides(&self, known: &[CUdeviceptr]) -> Vec<u64> {
        self.ranges().live.iter().filter(|(at, _)| !known.contains(at)).map(|(_, &bytes)| bytes).collect()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for &segment in self.ranges().segments.keys() {
            self.cuda.pool_free(segment);
        }
    }
}
