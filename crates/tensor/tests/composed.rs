//! Operations with a fused kernel against what they are composed of where a backend has none.

mod plain;

use ferrograd_tensor::random::RngState;
use ferrograd_tensor::{DType, Device, Tensor, catch, random::with_seed};
use plain::device;

#[test]
fn cat() {
    for dtype in DType::ALL {
        let a = Tensor::arange(-4.0, 8.0, 1.0f64).reshape([2, 3, 2]).to_dtype(dtype);
        let b = Tensor::arange(0.0, 8.0, 1.0f64).reshape([4, 1, 2]).permute([2, 1, 0]).narrow(2, 1, 2).to_dtype(dtype);
        let (pa, pb) = (a.to_device(&device()), b.to_device(&device()));
        let want = Tensor::cat(&[&a, &b, &a.narrow(1, 0, 0), &a.flip(1)], 1);
        let got = Tensor::cat(&[&pa, &pb, &pa.narrow(1, 0, 0), &pa.flip(1)], 1);
        assert_eq!((got.device(), got.to_bytes()), (device(), want.to_bytes()), "{dtype}");
    }
}

#[test]
fn dropout() {
    let state = RngState { seed: 5, offset: 2 };
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        let x = with_seed(1, || Tensor::randn_on([70, 30], dtype, &Device::CPU)).t();
        for p in [0.0, 0.3, 1.0] {
            let (want, got) = (x.dropout_with(p, state), x.to_device(&device()).dropout_with(p, state));
            assert_eq!((got.device(), got.to_bytes()), (device(), want.to_bytes()), "{dtype} {p}");
        }
    }
}

#[test]
fn random_tensors_on_another_device() {
    let draw = |on: &Device| {
        with_seed(9, || {
            let weights = Tensor::ones([2, 6]).to_device(on);
            [
                Tensor::rand_on(100, DType::F32, on),
                Tensor::randint_on(0, 9, 100, DType::I64, on),
                Tensor::randperm_on(50, on),
                weights.multinomial(3, false),
                weights.multinomial(20, true),
            ]
        })
    };
    for (here, there) in draw(&Device::CPU).iter().zip(draw(&device())) {
        assert_eq!((there.device(), there.to_bytes()), (device(), here.to_bytes()));
    }
}

#[test]
fn devices_do_not_mix() {
    let (a, b) = (Tensor::zeros([2]), Tensor::zeros([2]).to_device(&device()));
    let message = |f: &dyn Fn() -> Tensor| catch(f).unwrap_err().to_string();
    let rule = "operands live on different devices: [2] on cpu and [2] on plain:0 (move one with to_device)";
    assert_eq!(message(&|| &a + &b), format!("add: {rule}"));
    assert_eq!(message(&|| Tensor::cat(&[&a, &b], 0)), format!("cat: {rule}"));
    assert_eq!(message(&|| a.replace(|a| a.flip(0), &b)), format!("replace: {rule}"));
}
