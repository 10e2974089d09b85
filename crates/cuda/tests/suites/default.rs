//! A card as the default device, before any test runs.

use ferrograd_cuda::CudaDevice;
use ferrograd_tensor::Device;

#[ctor::ctor]
fn on_the_card() {
    // Tests of mistakes want them found where they are made.
    // SAFETY: there is one thread yet.
    unsafe { std::env::set_var("FERROGRAD_CUDA_WAIT", "1") };
    Device::cuda(0).unwrap_or_else(|error| panic!("{error}")).make_default();
}

/// The files of tests, each a module.
macro_rules! suites {
    ($($name:ident $path:literal)*) => {
        $(#[path = $path] mod $name;)*
    };
}
