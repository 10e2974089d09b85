//! The host does not wait for the card: a training step only launches, and an index out of range is reported by the next call
//! that waits. A program of its own: it counts what the driver was asked.

use ferrograd_autograd::Var;
use ferrograd_cuda::CudaDevice;
use ferrograd_nn::{Embedding, LayerNorm, Linear, Lstm, Module, cross_entropy};
use ferrograd_optim::{AdamW, Optimizer};
use ferrograd_tensor::{DType, Device, Tensor, catch};

/// How often the driver was waited for, if it is the emulator's: no other counts.
fn synchronizations() -> Option<usize> {
    // SAFETY: the driver is loaded already; this function takes nothing and gives a `size_t`.
    unsafe {
        let driver = libloading::Library::new("libcuda.so.1").ok()?;
        let count = driver.get::<unsafe extern "C" fn() -> usize>(b"emulator_count_synchronizations").ok()?;
        Some(count())
    }
}

#[test]
fn a_training_step_does_not_wait() {
    let cuda = Device::cuda(0).expect("a card");
    let (embed, norm, head) = (Embedding::new(11, 8), LayerNorm::new(8), Linear::new(8, 11));
    let model = (embed.to(&cuda), norm.to(&cuda), head.to(&cuda));
    let parameters = [model.0.parameters(), model.1.parameters(), model.2.parameters()].concat();
    let mut adam = AdamW::new(parameters).lr(1e-2);
    let tokens = Tensor::randint(0, 11, [4, 6]).to_device(&cuda);
    let mut step = || {
        let x = model.1.forward(&model.0.forward(&tokens)).gelu().dropout(0.1);
        let loss = cross_entropy(&model.2.forward(&x).reshape([24, 11]), tokens.reshape([24]));
        adam.step(&loss.backward());
        loss
    };
    // The first step compiles, and makes the optimiser's state.
    step();
    let before = synchronizations();
    let losses: Vec<Var> = (0..3).map(|_| step()).collect();
    assert_eq!(synchronizations(), before, "a step has waited for the card");
    let losses: Vec<f32> = losses.iter().map(|loss| loss.item()).collect();
    assert!(losses.iter().all(|l| l.is_finite()) && losses[2] < losses[0], "{losses:?}");
}

#[test]
fn a_recurrent_network_does_not_wait() {
    let cuda = Device::cuda(0).expect("a card");
    let lstm = Lstm::new(3, 5).to(&cuda);
    let x = Var::leaf(Tensor::randn([4, 2, 3]).to_device(&cuda));
    let step = || lstm.forward(&x).0.sum().backward();
    // The first one compiles.
    step();
    let before = synchronizations();
    step();
    assert_eq!(synchronizations(), before, "a step has waited for the card");
}

#[test]
fn an_index_out_of_range_is_reported_by_who_waits() {
    let cuda = Device::cuda(0).expect("a card");
    let x = Tensor::arange(0.0f32, 12.0, 1.0).reshape([4, 3]).to_device(&cuda);
    let index = |i: i64| Tensor::new([0, i, 1]).to_device(&cuda);
    for (wrong, op) in [(4, "index_select"), (-1, "index_select")] {
        let y = catch(|| x.index_select(0, &index(wrong))).expect("nobody has looked yet");
        let error = catch(|| y.to_f64_vec()).expect_err("a mistake").to_string();
        assert!(error.starts_with(&format!("{op}: index {wrong} lies outside 0..4")), "{error}");
        // Once; then all goes on.
        assert_eq!(x.index_select(0, &index(3)).to_f64_vec()[3..6], [9.0, 10.0, 11.0]);
    }
    let error = catch(|| x.index_add(0, &index(7), &x.narrow(0, 0, 3)).to_f64_vec()).expect_err("a mistake");
    assert!(error.to_string().starts_with("index_add: index 7"), "{error}");
    let targets = Tensor::new([0, 3, 2, 1i64]).to_device(&cuda);
    let loss = cross_entropy(&Var::leaf(x.clone()), &targets);
    let error = catch(|| loss.item::<f32>()).expect_err("a mistake").to_string();
    assert!(error.contains("index 3 lies outside 0..3"), "{error}");
    assert_eq!(x.to_dtype(DType::F64).sum().item::<f64>(), 66.0);
}
