//! The host does not wait for the card: a training step only launches, and an index out of range is reported by the next call
//! that waits. A program of its own: it counts what the driver was asked.

mod common;

use common::counted;
use ferrograd_autograd::Var;
use ferrograd_cuda::{CudaDevice, CudaGraph};
use ferrograd_nn::{Embedding, LayerNorm, Linear, Lstm, Module, cross_entropy};
use ferrograd_optim::{AdamW, Optimizer, clip_grad_norm};
use ferrograd_tensor::ops::pool::plane_gather;
use ferrograd_tensor::{DType, Device, Tensor, catch};
use std::sync::Mutex;

/// How often the driver was waited for, if it is the emulator's: no other counts.
fn synchronizations() -> Option<usize> {
    counted("emulator_count_synchronizations")
}

/// The driver counts for the whole program.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn a_training_step_does_not_wait() {
    let _alone = ONE_AT_A_TIME.lock();
    let cuda = Device::cuda(0).expect("a card");
    let (embed, norm, head) = (Embedding::new(11, 8), LayerNorm::new(8), Linear::new(8, 11));
    let model = (embed.to(&cuda), norm.to(&cuda), head.to(&cuda));
    let parameters = [model.0.parameters(), model.1.parameters(), model.2.parameters()].concat();
    let mut adam = AdamW::new(parameters).lr(1e-2);
    let tokens = Tensor::randint(0, 11, [4, 6]).to_device(&cuda);
    let mut step = || {
        let x = model.1.forward(&model.0.forward(&tokens)).gelu().dropout(0.1);
        let loss = cross_entropy(&model.2.forward(&x).reshape([24, 11]), tokens.reshape([24]));
        let mut grads = loss.backward();
        clip_grad_norm(&mut grads, &adam.parameters(), 1.0, 2.0);
        adam.step(&grads);
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
fn replays_and_uploads_do_not_wait() {
    let _alone = ONE_AT_A_TIME.lock();
    let cuda = Device::cuda(0).expect("a card");
    let head = Linear::new(8, 3).to(&cuda);
    let mut adam = AdamW::new(head.parameters()).lr(1e-2);
    let batch = |value: f64| Tensor::full([5, 8], value);
    let mut step = |x: &Tensor| {
        let loss = head.forward(&Var::constant(x.clone())).square().mean();
        let mut grads = loss.backward();
        let norm = clip_grad_norm(&mut grads, &adam.parameters(), 1e-3, 2.0);
        adam.step(&grads);
        (loss.tensor().clone(), norm)
    };
    step(&batch(1.0).to_device(&cuda));
    let (mut graph, _) = CudaGraph::capture(&cuda, &[&batch(1.0)], |x| step(&x[0])).expect("a graph");
    // More than the pinned memory's slots hold at a time, whose copies are done when their turn comes again.
    let large: Vec<Tensor> = (0..3).map(|i| Tensor::arange(0.0f32, 300_000.0 + i as f32, 1.0)).collect();
    let before = synchronizations();
    let there: Vec<Tensor> = large.iter().map(|x| x.to_device(&cuda)).collect();
    let losses: Vec<(Tensor, Tensor)> = (0..3).map(|i| graph.replay(&[&batch(i as f64)])).collect();
    assert_eq!(synchronizations(), before, "a replay or an upload has waited for the card");
    for (x, y) in large.iter().zip(&there) {
        assert_eq!(x.to_vec::<f32>(), y.to_vec::<f32>());
    }
    assert!(losses.iter().all(|(loss, norm)| loss.item::<f64>().is_finite() && norm.item::<f64>().is_finite()));
    assert!(losses[2].1.item::<f64>() > losses[1].1.item::<f64>());
}

#[test]
fn what_comes_down_is_what_was_computed() {
    let _alone = ONE_AT_A_TIME.lock();
    let cuda = Device::cuda(0).expect("a card");
    // Numbers of 4 bytes in a slot of pinned memory, and in all that are filled at a time.
    let (slot, all) = (1 << 16, 1 << 20);
    for n in [0, 1, slot - 1, slot + 1, all, all + 1, 2 * all + slot + 3] {
        let x = Tensor::arange(0, n, 1i32).to_device(&cuda);
        let (y, z) = (x.add_scalar(1.0), x.add_scalar(2.0));
        for (tensor, first) in [(&y, 1), (&z, 2), (&x, 0)] {
            assert!(tensor.to_vec::<i32>().into_iter().eq(first..first + n), "{n} numbers");
        }
    }
}

#[test]
fn a_recurrent_network_does_not_wait() {
    let _alone = ONE_AT_A_TIME.lock();
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
    let _alone = ONE_AT_A_TIME.lock();
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
    let places = Tensor::from_vec(vec![12i64, -1, 3], [1, 3]).to_device(&cuda);
    let y = catch(|| plane_gather(&x.add_scalar(1.0), &places)).expect("nobody has looked yet");
    let error = catch(|| y.to_f64_vec()).expect_err("a mistake").to_string();
    assert!(error.starts_with("plane_gather: index 12 lies outside 0..12"), "{error}");
    assert_eq!(y.to_f64_vec(), [0.0, 0.0, 4.0]);
    let targets = Tensor::new([0, 3, 2, 1i64]).to_device(&cuda);
    let loss = cross_entropy(&Var::leaf(x.clone()), &targets);
    let error = catch(|| loss.item::<f32>()).expect_err("a mistake").to_string();
    assert!(error.contains("index 3 lies outside 0..3"), "{error}");
    assert_eq!(x.to_dtype(DType::F64).sum().item::<f64>(), 66.0);
}
