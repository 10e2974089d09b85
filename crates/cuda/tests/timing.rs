//! The card's clock. It needs a card, or the emulator: `cargo xtask test-cuda`.

use ferrograd_cuda::{CudaDevice, CudaEvent, time};
use ferrograd_tensor::{DType, Device, Tensor, catch};
use std::cell::Cell;

#[test]
fn events_are_in_order() {
    let cuda = Device::cuda(0).expect("a card");
    let x = Tensor::full_on([128, 128], 1.0, DType::F32, &cuda);
    let moments = [(); 3].map(|()| {
        x.matmul(&x);
        CudaEvent::record(&cuda)
    });
    let [whole, first, second] = [(0, 2), (0, 1), (1, 2)].map(|(from, to)| moments[to].since(&moments[from]));
    assert!(first > 0.0 && second > 0.0, "{first} {second}");
    assert!((whole - first - second).abs() < 1e-3 * whole.max(1.0), "{first} + {second} ≠ {whole}");
}

#[test]
fn only_what_is_timed_counts() {
    let cuda = Device::cuda(0).expect("a card");
    let x = Tensor::full_on([192, 192], 1.0, DType::F32, &cuda);
    let product = || drop(x.matmul(&x));
    product();
    let (prepared, called) = (Cell::new(0), Cell::new(0));
    let count = |n: &Cell<usize>| n.set(n.get() + 1);
    let nothing = time(&cuda, 9, || (count(&prepared), product()).1, || count(&called));
    assert_eq!([nothing.len(), prepared.get(), called.get()], [9; 3]);
    let products = time(&cuda, 9, || (), product);
    // The least of several: another program may come between any of them.
    let [nothing, products] = [nothing, products].map(|ms| ms.into_iter().fold(f64::INFINITY, f64::min));
    assert!((0.0..products).contains(&nothing), "{nothing} {products}");
}

#[test]
fn the_cpu_has_no_events() {
    let error = catch(|| drop(CudaEvent::record(&Device::CPU))).expect_err("no card").to_string();
    assert!(error.contains("only a card has events"), "{error}");
}
