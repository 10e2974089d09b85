//! Memory of a card.

use crate::arena::Arena;
use crate::cuda::Cuda;
use crate::driver::explain;
use crate::graph::keep;
use cudarc::driver::{result, sys};
use ferrograd_tensor::storage::Buffer;
use ferrograd_tensor::{Tensor, fail};
use std::any::Any;
use std::sync::Arc;

/// Memory of a card, from a pool that keeps what is freed. It is there, and free again, in the order of the stream: a
/// kernel that was launched before may still read what has been dropped.
pub struct CudaBuffer {
    /// None if there is nothing to hold.
    pub(crate) block: Option<Arc<Block>>,
    bytes: usize,
}

/// A piece of memory: free again when the last who needs it is gone, the buffer or a graph that works on it.
pub(crate) struct Block {
    pub address: sys::CUdeviceptr,
    pub cuda: &'static Cuda,
    /// The graph's memory of which it is a part, if it is.
    arena: Option<Arc<Arena>>,
}

impl Buffer for CudaBuffer {
    fn bytes(&self) -> usize {
        self.bytes
    }
    fn address(&self) -> usize {
        self.start() as usize
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl CudaBuffer {
    /// 0 if there is nothing to hold.
    fn start(&self) -> sys::CUdeviceptr {
        self.block.as_ref().map_or(0, |block| block.address)
    }
}

impl Block {
    /// Is it a part of this graph's memory?
    pub fn is_in(&self, arena: &Arc<Arena>) -> bool {
        self.arena.as_ref().is_some_and(|own| Arc::ptr_eq(own, arena))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        match &self.arena {
            Some(arena) => arena.release(self.address),
            None => self.cuda.pool_free(self.address),
        }
    }
}

impl Cuda {
    /// Memory of unspecified contents.
    #[track_caller]
    pub(crate) fn allocate(&'static self, bytes: usize) -> CudaBuffer {
        if bytes == 0 {
            return CudaBuffer { block: None, bytes };
        }
        let block = match self.arena() {
            Some(arena) => Arc::new(Block { address: arena.allocate(bytes), cuda: self, arena: Some(arena) }),
            None => self.pool_block(bytes),
        };
        CudaBuffer { block: Some(block), bytes }
    }

    /// Memory of the pool, also while a step is captured.
    #[track_caller]
    pub(crate) fn pool_block(&'static self, bytes: usize) -> Arc<Block> {
        Arc::new(Block { address: self.pool_allocate(bytes, self.stream), cuda: self, arena: None })
    }

    /// Memory of the pool that is there in the order of a stream.
    #[track_caller]
    pub(crate) fn pool_allocate(&self, bytes: usize, stream: sys::CUstream) -> sys::CUdeviceptr {
        self.bind();
        // SAFETY: the stream lives as long as the card.
        let ask = || unsafe { result::malloc_async(stream, bytes) };
        let address = ask().or_else(|first| {
            // What other streams or sizes hold back may be enough.
            // SAFETY: the pool and the stream live as long as the card.
            unsafe {
                result::stream::synchronize(self.stream)?;
                result::mem_pool::trim_to(self.pool, 0)?;
            }
            ask().map_err(|_| first)
        });
        match address {
            Ok(address) => address,
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let m = self.memory_use();
                let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
                fail!(
                    Device,
                    "allocate",
                    "no memory on {} for {:.1} MiB: {:.1} MiB are in tensors, {:.1} of {:.1} MiB are free",
                    self.name,
                    mib(bytes),
                    mib(m.used),
                    mib(m.free),
                    mib(m.total)
                )
            }
            Err(e) => self.broken("allocate", e),
        }
    }

    pub(crate) fn pool_free(&self, address: sys::CUdeviceptr) {
        self.bind();
        // SAFETY: in the order of this stream it was allocated long ago (or its copy was waited for), and nobody has it any more. An error has nowhere to go: the memory is lost.
        let _ = unsafe { result::free_async(address, self.stream) };
    }

    /// The driver refuses to go on: a kernel has failed, or the card is gone.
    #[track_caller]
    pub(crate) fn broken(&self, op: &'static str, answer: result::DriverError) -> ! {
        fail!(Device, op, "{}", explain(&self.name, answer))
    }

    /// The bytes, on the card; now, also while a step is captured, to which they are constants.
    #[track_caller]
    pub(crate) fn upload(&'static self, bytes: &[u8]) -> CudaBuffer {
        if bytes.is_empty() {
            return CudaBuffer { block: None, bytes: 0 };
        }
        // Memory that is there in the order of the copies: they do not wait for what is being computed.
        let copies = self.staging.stream;
        let block = Arc::new(Block { address: self.pool_allocate(bytes.len(), copies), cuda: self, arena: None });
        // SAFETY: there is room. What is launched from now on, and the release, come after the copy.
        unsafe {
            let copied = self.stage(block.address, bytes, copies);
            let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
            result::stream::wait_event(self.stream, copied, flags).unwrap_or_else(|e| self.broken("upload", e));
        }
        CudaBuffer { block: Some(block), bytes: bytes.len() }
    }

    /// The bytes, on the host, when all that was launched before is done.
    #[track_caller]
    pub(crate) fn download(&self, buffer: &CudaBuffer) -> Vec<u8> {
        self.refuse_in_capture("download", "`item`, `to_vec` or printing");
        self.bind();
        let mut bytes = vec![0u8; buffer.bytes];
        // SAFETY: both have as many bytes.
        unsafe { self.fetch(&mut bytes, buffer.start()) };
        self.wait();
        bytes
    }

    /// Until all that was launched is done.
    #[track_caller]
    pub(crate) fn wait(&self) {
        self.refuse_in_capture("synchronize", "waiting for the card");
        self.bind();
        // SAFETY: the stream lives as long as the card.
        unsafe { result::stream::synchronize(self.stream) }.unwrap_or_else(|e| self.broken("synchronize", e));
        self.report_mistake();
    }
}

/// Where a tensor's element 0 lies, for a kernel that is launched now.
pub fn address(x: &Tensor) -> sys::CUdeviceptr {
    let buffer = x.buffer().as_any().downcast_ref::<CudaBuffer>().expect("a CUDA tensor has CUDA memory");
    keep(buffer);
    buffer.start() + (x.layout().offset * x.dtype().size()) as u64
}
