//! One card: its context, its stream, its memory, its kernels.

use crate::driver::{self, error, explain};
use crate::ops::index_check::Mistake;
use crate::programs::Programs;
use crate::staging::Staging;
use cudarc::driver::{result, sys};
use ferrograd_tensor::Result;
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use sys::CUdevice_attribute_enum as Attribute;

/// The oldest architecture that the kernels are written for: Ampere, which brought asynchronous copies and bf16.
const OLDEST: (i32, i32) = (8, 0);

/// A card.
///
/// All work of a card goes through one stream, in the order in which it was called, and copies from the host through another,
/// for which the first one waits; the host waits for nothing but
/// [`synchronize`](ferrograd_tensor::backend::Backend::synchronize) and what brings results to the host.
pub struct Cuda {
    pub(crate) index: usize,
    /// The card, for good; see [`Cuda::card`].
    itself: OnceLock<&'static Cuda>,
    context: sys::CUcontext,
    pub(crate) stream: sys::CUstream,
    pub(crate) staging: Staging,
    pub(crate) pool: sys::CUmemoryPool,
    pub(crate) name: String,
    pub(crate) capability: (i32, i32),
    /// Streaming multiprocessors.
    pub(crate) multiprocessors: u32,
    /// Bytes of shared memory that a block may have, most.
    pub(crate) shared_memory: usize,
    pub(crate) programs: Programs,
    /// Is every launch waited for? Then mistakes are found where they are made.
    pub(crate) waits: bool,
    /// Where the card writes down that an index was out of range.
    pub(crate) mistake: HostMemory<Mistake>,
}

/// Memory of the host that the card sees too, at the same address; for good.
pub(crate) struct HostMemory<T>(pub *mut T);
// SAFETY: the handles may be used from any thread that has made the context current, which `bind` does.
unsafe impl Send for Cuda {}
// SAFETY: as above; the driver locks for itself.
unsafe impl Sync for Cuda {}

/// A card's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// In tensors now.
    pub used: usize,
    /// The most that has been in tensors at a time.
    pub peak: usize,
    /// Held for tensors, in use or not.
    pub reserved: usize,
    /// That nobody has, on the card.
    pub free: usize,
    /// Of the card.
    pub total: usize,
}

impl Cuda {
    /// The card of this index. Cards live as long as the program.
    ///
    /// # Errors
    /// See [`CudaDevice::cuda`](crate::CudaDevice::cuda).
    pub fn get(index: usize) -> Result<&'static Cuda> {
        static CARDS: Mutex<Option<HashMap<usize, &'static Cuda>>> = Mutex::new(None);
        let mut cards = CARDS.lock().unwrap_or_else(PoisonError::into_inner);
        let cards = cards.get_or_insert_default();
        if let Some(card) = cards.get(&index) {
            return Ok(card);
        }
        let card: &'static Cuda = Box::leak(Box::new(Cuda::open(index)?));
        card.itself.set(card).unwrap_or_else(|_| unreachable!("a card is opened once"));
        cards.insert(index, card);
        Ok(card)
    }

    fn open(index: usize) -> Result<Cuda> {
        let count = driver::count()?;
        if index >= count {
            return Err(error(match count {
                0 => "the driver sees no card (CUDA_VISIBLE_DEVICES may hide them)".to_owned(),
                _ => format!("there is no card {index}: the driver sees {count}, counted from 0"),
            }));
        }
        let failed = |e| explain("opening the card", e);
        let device = result::device::get(index as i32).map_err(failed)?;
        let name = result::device::get_name(device).map_err(failed)?;
        // SAFETY: the device comes from the driver.
        let attribute = |a| unsafe { result::device::get_attribute(device, a) }.map_err(failed);
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        if capability < OLDEST {
            let ((major, minor), (old, _)) = (capability, OLDEST);
            return Err(error(format!(
                "{name} has compute capability {major}.{minor}; the kernels need {old}.0 (Ampere) or later"
            )));
        }
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32;
        let shared_memory = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize;
        let programs = Programs::new(capability)?;
        // SAFETY: the device comes from the driver; its primary context is held as long as the program lives.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(failed)?;
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context) }.map_err(failed)?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed)?;
        let staging = Staging::new()?;
        // SAFETY: the device comes from the driver.
        let pool = unsafe { result::device::get_default_mem_pool(device) }.map_err(failed)?;
        let mut keep = u64::MAX;
        // SAFETY: the pool is the device's; the attribute's value is a u64. What tensors free is kept for the next ones.
        unsafe {
            let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            result::mem_pool::set_attribute(pool, attribute, (&raw mut keep).cast()).map_err(failed)?;
        }
        const MAPPED: u32 = 2; // CU_MEMHOSTALLOC_DEVICEMAP
        // SAFETY: the context is current; the memory is never freed, and zero is a `Mistake` that has not been made.
        let mistake = unsafe {
            let memory = result::malloc_host(size_of::<Mistake>(), MAPPED).map_err(failed)?.cast::<Mistake>();
            memory.write_bytes(0, 1);
            HostMemory(memory)
        };
        let waits = std::env::var_os("FERROGRAD_CUDA_WAIT").is_some_and(|v| v == "1");
        let itself = OnceLock::new();
        Ok(Cuda {
            index,
            itself,
            context,
            stream,
            staging,
            pool,
            name,
            capability,
            multiprocessors,
            shared_memory,
            programs,
            waits,
            mistake,
        })
    }

    /// Itself: cards live as long as the program, and are made by [`Cuda::get`] only.
    pub(crate) fn card(&self) -> &'static Cuda {
        self.itself.get().expect("set when it was opened")
    }

    /// Makes the card the calling thread's, before anything is asked of the driver.
    pub(crate) fn bind(&self) {
        // SAFETY: the context lives as long as the program.
        let bound = unsafe { result::ctx::set_current(self.context) };
        bound.unwrap_or_else(|e| panic!("{}", explain("choosing the card", e)));
    }

    /// How much memory is in use, and how much there is.
    pub fn memory_use(&self) -> MemoryUse {
        use sys::CUmemPool_attribute as Pool;
        self.bind();
        let (free, total) = result::mem_get_info().unwrap_or_default();
        let read = |attribute| {
            let mut bytes = 0u64;
            // SAFETY: the pool is the card's; these attributes are u64s. Unread, it stays 0.
            let _ = unsafe { result::mem_pool::get_attribute(self.pool, attribute, (&raw mut bytes).cast()) };
            bytes as usize
        };
        MemoryUse {
            used: read(Pool::CU_MEMPOOL_ATTR_USED_MEM_CURRENT),
            peak: read(Pool::CU_MEMPOOL_ATTR_USED_MEM_HIGH),
            reserved: read(Pool::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT),
            free,
            total,
        }
    }
}
