//! What a machine without a driver says. (Where there is one: that the first card opens, or says why not.)

use ferrograd_cuda::{CudaDevice, device_count};
use ferrograd_tensor::Device;

#[test]
fn no_driver_is_an_error_that_says_what_to_do() {
    match Device::cuda(0) {
        Ok(_) => assert!(device_count() > 0),
        Err(error) if device_count() == 0 => {
            let text = error.to_string();
            let clear = text.contains("install NVIDIA's driver") || text.contains("the driver sees no card");
            assert!(clear, "{text}");
            // Again, and not a panic.
            assert_eq!(Device::cuda(7).unwrap_err().to_string(), text);
        }
        Err(error) => assert!(error.to_string().starts_with("cuda: "), "{error}"),
    }
}
