//! Tensors on the card beside the CPU's.

use ferrograd_cuda::CudaDevice;
use ferrograd_tensor::backend::Backend;
use ferrograd_tensor::cpu::CpuBackend;
use ferrograd_tensor::{DType, Device, Tensor};

pub fn cuda() -> Device {
    Device::cuda(0).unwrap_or_else(|error| panic!("{error}"))
}

pub fn card() -> &'static dyn Backend {
    cuda().backend()
}

/// The same memory on the card, with the same strides.
pub fn there(x: &Tensor) -> Tensor {
    let bytes = CpuBackend.download(&**x.buffer());
    Tensor::from_buffer(card().upload(&bytes), x.layout().clone(), x.dtype(), cuda())
}

/// Is `got` what the product of `a` and `b`, plus a bias, is, but for roundings? Computed in f64; a sum of K products in f32
/// has K roundings of at most the sum of their magnitudes, and the result one of its own type.
#[track_caller]
pub fn is_product(what: &str, got: &Tensor, a: &Tensor, b: &Tensor, bias: Option<&Tensor>) {
    let [a, b] = [a, b].map(|x| x.to_dtype(DType::F64));
    let [mut want, mut magnitude] = [CpuBackend.matmul(&a, &b), CpuBackend.matmul(&a.abs(), &b.abs())];
    if let Some(bias) = bias.map(|x| x.to_dtype(DType::F64)) {
        (want, magnitude) = (want + &bias, magnitude + bias.abs());
    }
    assert_eq!(got.dims(), want.dims(), "{what}");
    assert_eq!(got.device(), cuda(), "{what}");
    let sum = a.dim(-1) as f64 * got.dtype().accumulator().epsilon();
    let numbers = got.to_f64_vec().into_iter().zip(want.to_f64_vec()).zip(magnitude.to_f64_vec());
    for (i, ((g, w), m)) in numbers.enumerate() {
        let bound = sum * m + got.dtype().epsilon() * w.abs();
        let ok = (g - w).abs() <= bound || g == w || g.is_nan() && w.is_nan();
        assert!(ok, "{what}: element {i} is {g}, not {w} ± {bound:e}");
    }
}

/// Equal but for `roundings` of the accumulator, relative to the larger of 1 and the value, and one of the dtype; NaN is NaN.
#[track_caller]
pub fn close(what: &str, got: &Tensor, want: &Tensor, roundings: f64) {
    assert_eq!((got.shape(), got.dtype()), (want.shape(), want.dtype()), "{what}");
    assert_eq!(got.device(), cuda(), "{what}");
    let dtype = want.dtype();
    let relative = if roundings > 0.0 { roundings * dtype.accumulator().epsilon() + dtype.epsilon() } else { 0.0 };
    for (i, (g, w)) in got.to_f64_vec().into_iter().zip(want.to_f64_vec()).enumerate() {
        let ok = g == w || (g - w).abs() <= relative * w.abs().max(1.0) || g.is_nan() && w.is_nan();
        assert!(ok, "{what}: element {i} is {g}, not {w}");
    }
}

/// What the emulator has counted under this name; nothing on a real card.
#[track_caller]
pub fn counted(name: &str) -> Option<usize> {
    // SAFETY: the driver is loaded already; only the emulator exports these functions, which have this type.
    let count = unsafe {
        let driver = libloading::Library::new("libcuda.so.1").expect("the driver");
        driver.get::<extern "C" fn() -> usize>(name.as_bytes()).map(|count| count()).ok()
    };
    // `cargo xtask test-cuda` gives the emulator a schedule.
    assert!(count.is_some() || std::env::var_os("FERROGRAD_EMULATOR_SEED").is_none(), "the emulator has no {name}");
    count
}

/// What `f` returns, which takes so many launches; on a real card nobody counts them.
#[track_caller]
pub fn in_launches<T, F: FnOnce() -> T>(launches: usize, what: &str, f: F) -> T {
    let before = counted("emulator_count_launches");
    let y = f();
    let made = counted("emulator_count_launches").map_or(launches, |now| now - before.unwrap_or(0));
    assert_eq!(made, launches, "{what}: launches");
    y
}

/// Is the product right, made in so many launches, and by Hopper's own instructions? A real card says nothing of the last two.
#[track_caller]
pub fn by_wgmma(launches: usize, a: &Tensor, b: &Tensor, bias: Option<&Tensor>) {
    let strides = [a, b].map(|x| &x.layout().strides);
    let what = format!("{}{} × {} of strides {strides:?}", a.dtype(), a.shape(), b.shape());
    let (a2, b2, bias2, before) = (there(a), there(b), bias.map(there), counted("emulator_count_wgmma"));
    let got = in_launches(launches, &what, || match &bias2 {
        None => card().matmul(&a2, &b2),
        Some(bias) => card().matmul_bias(&a2, &b2, bias).expect("a kernel"),
    });
    is_product(&what, &got, a, b, bias);
    assert!(counted("emulator_count_wgmma").is_none_or(|now| Some(now) > before), "{what}: by another kernel");
}

/// Each test uses the part it needs: none of this is dead code where it is included.
const _: () = {
    let _ = (card, there, is_product, counted, close, in_launches::<(), fn()>, by_wgmma);
};
