//! The CUDA backend: a [`Device`] for each card, with hand-written kernels.
//!
//! The same program runs with and without a card. The driver and the compiler (NVRTC) are loaded when the first device
//! is asked for; where something is missing, [`CudaDevice::cuda`] says what, and how to get it:
//!
//! ```
//! use ferrograd_cuda::CudaDevice;
//! use ferrograd_tensor::{Device, Tensor};
//! match Device::cuda(0) {
//!     Ok(cuda) => println!("{}", Tensor::ones([2, 3]).to_device(&cuda).exp().sum()),
//!     Err(error) => println!("{error}"), // cuda: no CUDA driver here (libcuda.so.1): …
//! }
//! ```
//!
//! Kernels lie in `kernels/*.cu`, one file per operation, and are compiled for the card when they are first called. What
//! was compiled is kept in `FERROGRAD_CACHE` (default: `ferrograd` in the user's cache folder).
//!
//! | floor | what |
//! |---|---|
//! | `driver`, `nvrtc` | the two libraries, behind safe calls |
//! | `programs`, `cubin` | from a file's name to a kernel that can be launched; machine code on the disk |
//! | `memory`, `staging`, `launch`, `layout` | buffers, uploads, launches, and how strides get there |
//! | `graph`, `arena` | steps that are captured and replayed, and their memory |
//! | `ops` | one file per operation, as everywhere |
//! | `kernel` | kernels of the user's own |
//! | `timing` | how long the card takes |
//! | `backend` | [`Backend`](ferrograd_tensor::backend::Backend): all of it put together |
#![warn(missing_docs)]

mod arena;
mod backend;
mod cubin;
mod cuda;
mod driver;
mod graph;
mod kernel;
pub mod ladder;
mod launch;
mod layout;
mod memory;
mod nvrtc;
mod ops;
mod programs;
mod staging;
mod timing;

pub use cuda::{Cuda, MemoryUse};
pub use graph::{CudaGraph, Outputs};
pub use kernel::CudaKernel;
pub use programs::{Report, compile_all};
pub use timing::{CudaEvent, time};

use ferrograd_tensor::{Device, Result};

/// CUDA's devices, as [`Device`]s.
pub trait CudaDevice: Sized {
    /// The card of this index, 0 for the first.
    ///
    /// # Errors
    /// If there is no driver, no such card or one that is too old, or no compiler; the message says which, and what helps.
    fn cuda(index: usize) -> Result<Self>;
}

impl CudaDevice for Device {
    fn cuda(index: usize) -> Result<Device> {
        Ok(Device::from_backend(Cuda::get(index)?))
    }
}

/// How many cards the driver sees: 0 without a driver.
pub fn device_count() -> usize {
    driver::count().unwrap_or(0)
}
