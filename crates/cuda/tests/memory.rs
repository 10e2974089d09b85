//! What a card's memory is used for. A program of its own: other tests would use it at the same time.

use ferrograd_cuda::{Cuda, CudaDevice};
use ferrograd_tensor::{DType, Device, Tensor, catch};

#[test]
fn memory_is_counted_and_kept() {
    let device = Cuda::get(0).expect("a card");
    let cuda = Device::cuda(0).expect("a card");
    let before = device.memory_use().used;
    let x = Tensor::full_on([1 << 20], 1.0, DType::F32, &cuda);
    assert!(device.memory_use().used >= before + (4 << 20));
    drop(x);
    cuda.backend().synchronize();
    assert_eq!(device.memory_use().used, before);
    let error = catch(|| cuda.backend().full(&[1usize << 50].into(), DType::F32, 0.0)).err();
    let error = error.expect("more than there is").to_string();
    assert!(error.contains("no memory on") && error.contains("MiB are in tensors"), "{error}");
    // And the card goes on.
    assert_eq!(Tensor::full_on([3], 2.0, DType::F32, &cuda).to_f64_vec(), [2.0; 3]);
}
