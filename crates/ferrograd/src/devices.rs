//! `Device::cuda(0)`, with and without the backend.

#[cfg(feature = "cuda")]
pub use ferrograd_cuda::CudaDevice;

/// CUDA's devices: there are none in a program that was built without them.
#[cfg(not(feature = "cuda"))]
pub trait CudaDevice: Sized {
    /// The card of this index.
    ///
    /// # Errors
    /// Always: the feature `cuda` is off.
    fn cuda(index: usize) -> ferrograd_tensor::Result<Self>;
}

#[cfg(not(feature = "cuda"))]
impl CudaDevice for ferrograd_tensor::Device {
    fn cuda(_: usize) -> ferrograd_tensor::Result<Self> {
        let message = "this program was built without CUDA: turn on ferrograd's feature `cuda`".into();
        Err(ferrograd_tensor::Error::Device { op: "cuda", message })
    }
}
