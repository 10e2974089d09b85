//! Kernels of the user's own: every dtype, broadcasting, several outputs, scalars, and what is said of mistakes.

use ferrograd_cuda::{CudaDevice, CudaKernel};
use ferrograd_tensor::{DType, Device, Tensor, catch};

fn cuda() -> Device {
    Device::cuda(0).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_dtype() {
    let twice = CudaKernel::new("twice").inputs(["x"]).outputs(["y"]);
    let (plain, half) = (twice.body("y[i] = x[i] + x[i];"), CudaKernel::new("twice_half").inputs(["x"]).outputs(["y"]));
    let half = half.body("y[i] = store<T>(2 * load(x[i]));");
    for dtype in DType::ALL.into_iter().filter(|&d| d != DType::Bool) {
        let x = Tensor::arange(0i64, 1037, 1).clamp(0.0, 60.0).to_dtype(dtype);
        let y = if dtype.is_half() { &half } else { &plain }.run(&[&x.to_device(&cuda())], &[]);
        assert_eq!((y[0].dtype(), y[0].device()), (dtype, cuda()));
        assert_eq!(y[0].to_f64_vec(), (&x + &x).to_f64_vec(), "{dtype}");
    }
}

#[test]
fn several_of_everything() {
    let kernel = CudaKernel::new("affine").inputs(["x", "w"]).outputs(["y", "z"]).scalars(["a", "b"]);
    let kernel = kernel.body("y[i] = a * x[i] + w[i];\nz[i] = b - x[i] * w[i];");
    let (x, w) = (Tensor::new([[1.0], [2.0f32]]), Tensor::new([10.0, 20.0, 30.0f32]));
    let run = || kernel.run(&[&x.to_device(&cuda()), &w.to_device(&cuda())], &[0.5, 1.0]);
    for _ in 0..2 {
        let y = run();
        assert_eq!(y[0].dims(), [2, 3]);
        assert_eq!(y[0].to_vec::<f32>(), [10.5, 20.5, 30.5, 11.0, 21.0, 31.0]);
        assert_eq!(y[1].to_vec::<f32>(), [-9.0, -19.0, -29.0, -19.0, -39.0, -59.0]);
    }
    let nothing = Tensor::zeros([0, 3]).to_device(&cuda());
    assert_eq!(kernel.run(&[&nothing, &w.to_device(&cuda())], &[0.0, 0.0])[1].dims(), [0, 3]);
}

#[test]
fn mistakes_are_named() {
    let kernel = CudaKernel::new("copy").inputs(["x"]).outputs(["y"]).body("y[i] = x[j];");
    let x = Tensor::ones(3).to_device(&cuda());
    let error = |f: &dyn Fn() -> Vec<Tensor>| catch(f).expect_err("a mistake").to_string();
    let text = error(&|| kernel.run(&[&x], &[]));
    assert!(text.contains("copy.cu does not compile") && text.contains('j'), "{text}");
    assert_eq!(error(&|| kernel.run(&[], &[])), "CudaKernel: copy takes 1 inputs, got 0");
    assert_eq!(error(&|| kernel.run(&[&x], &[1.0])), "CudaKernel: copy takes 0 scalars, got 1");
    assert_eq!(error(&|| kernel.run(&[&Tensor::ones(3)], &[])), "CudaKernel: copy runs on a card, not on cpu");
}
