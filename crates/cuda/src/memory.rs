//! Memory of a card.

use crate::cuda::Cuda;
use crate::driver::explain;
use cudarc::driver::{result, sys};
use ferrograd_tensor::storage::Buffer;
use ferrograd_tensor::{Tensor, fail};
use std::any::Any;

/// Memory of a card, from a pool that keeps what is freed. It is there, and free again, in the order of the stream: a
/// kernel that was launched before may still read what has been dropped.
pub struct CudaBuffer {
    /// 0 if there is nothing to hold.
    pub(crate) address: sys::CUdeviceptr,
    bytes: usize,
    cuda: &'static Cuda,
}

impl Buffer for CudaBuffer {
    fn bytes(&self) -> usize {
        self.bytes
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        if self.address != 0 {
            self.cuda.bind();
            // SAFETY: allocated on this stream, and nobody has it any more. An error has nowhere to go: the memory is lost.
            let _ = unsafe { result::free_async(self.address, self.cuda.stream) };
        }
    }
}

impl Cuda {
    /// Memory of unspecified contents.
    #[track_caller]
    pub(crate) fn allocate(&'static self, bytes: usize) -> CudaBuffer {
        self.bind();
        if bytes == 0 {
            return CudaBuffer { address: 0, bytes, cuda: self };
        }
        // SAFETY: the stream lives as long as the card.
        let ask = || unsafe { result::malloc_async(self.stream, bytes) };
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
            Ok(address) => CudaBuffer { address, bytes, cuda: self },
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

    /// The driver refuses to go on: a kernel has failed, or the card is gone.
    #[track_caller]
    pub(crate) fn broken(&self, op: &'static str, answer: result::DriverError) -> ! {
        fail!(Device, op, "{}", explain(&self.name, answer))
    }

    /// The bytes, on the card.
    #[track_caller]
    pub(crate) fn upload(&'static self, bytes: &[u8]) -> CudaBuffer {
        let buffer = self.allocate(bytes.len());
        if !bytes.is_empty() {
            // SAFETY: the buffer has as many bytes. From pageable memory the driver takes them before it returns.
            let copied = unsafe { result::memcpy_htod_async(buffer.address, bytes, self.stream) };
            copied.unwrap_or_else(|e| self.broken("upload", e));
        }
        buffer
    }

    /// The bytes, on the host, when all that was launched before is done.
    #[track_caller]
    pub(crate) fn download(&self, buffer: &CudaBuffer) -> Vec<u8> {
        self.bind();
        let mut bytes = vec![0u8; buffer.bytes];
        if !bytes.is_empty() {
            // SAFETY: both have as many bytes; they are read after the stream is done.
            let copied = unsafe { result::memcpy_dtoh_async(&mut bytes[..], buffer.address, self.stream) };
            copied.unwrap_or_else(|e| self.broken("download", e));
        }
        self.wait();
        bytes
    }

    /// Until all that was launched is done.
    #[track_caller]
    pub(crate) fn wait(&self) {
        self.bind();
        // SAFETY: the stream lives as long as the card.
        unsafe { result::stream::synchronize(self.stream) }.unwrap_or_else(|e| self.broken("synchronize", e));
        self.report_mistake();
    }
}

/// Where a tensor's element 0 lies.
pub fn address(x: &Tensor) -> sys::CUdeviceptr {
    let buffer = x.buffer().as_any().downcast_ref::<CudaBuffer>().expect("a CUDA tensor has CUDA memory");
    buffer.address + (x.layout().offset * x.dtype().size()) as u64
}
