//! `Device::cuda(0)`, with and without the backend, and devices by name.

use ferrograd_tensor::{Device, Error, Result};

#[cfg(feature = "cuda")]
pub use ferrograd_cuda::CudaDevice;

/// CUDA's devices: there are none in a program that was built without them.
#[cfg(not(feature = "cuda"))]
pub trait CudaDevice: Sized {
    /// The card of this index.
    ///
    /// # Errors
    /// Always: the feature `cuda` is off.
    fn cuda(index: usize) -> Result<Self>;
}

#[cfg(not(feature = "cuda"))]
impl CudaDevice for Device {
    fn cuda(_: usize) -> Result<Self> {
        let message = "this program was built without CUDA: turn on ferrograd's feature `cuda`".into();
        Err(Error::Device { op: "cuda", message })
    }
}

/// The device of this name, as a person gives it to a program: `cpu`, `cuda` (which is `cuda:0`), `cuda:1`, …
///
/// # Errors
/// If there is no such name, or if that device cannot be used: see [`CudaDevice::cuda`].
///
/// ```
/// assert_eq!(ferrograd::device("cpu")?, ferrograd::tensor::Device::cpu());
/// assert!(ferrograd::device("abacus").is_err());
/// # Ok::<(), ferrograd::Error>(())
/// ```
pub fn device(name: &str) -> Result<Device> {
    let index = match name {
        "cpu" => return Ok(Device::cpu()),
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|index| index.parse().ok()),
    };
    let unknown = || Error::format("device", format!("{name:?} is none of cpu, cuda, cuda:0, cuda:1, …"));
    Device::cuda(index.ok_or_else(unknown)?)
}
