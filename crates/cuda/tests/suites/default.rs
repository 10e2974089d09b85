//! A card as the default device, before any test runs.

use ferrograd_cuda::CudaDevice;
use ferrograd_tensor::Device;

#[ctor::ctor]
fn on_the_card() {
    Device::cuda(0).unwrap_or_else(|error| panic!("{error}")).make_default();
}
