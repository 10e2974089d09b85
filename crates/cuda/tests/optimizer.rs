//! Many tensors in one launch: optimiser steps, the norm of all gradients, and their scaling.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{card, there};
use ferrograd_autograd::Gradients;
use ferrograd_nn::Param;
use ferrograd_optim::clip_grad_norm;
use ferrograd_tensor::ops::optimizer::{Adam, OptimizerStep, StepCell, Update};
use ferrograd_tensor::{DType, Tensor};
use layouts::Random;

/// More tensors than a table has; chunks that are whole, short and empty.
fn sizes() -> Vec<usize> {
    let mut sizes = vec![0, 1, 3, 64, 4095, 4096, 4097, 9000, 0];
    sizes.extend((0..130).map(|i| i * 7 % 41));
    sizes
}

/// On the card, some at places where no 16 bytes can be moved at once.
fn tensors(random: &mut Random, dtype: DType) -> Vec<Tensor> {
    let make = |(i, n): (usize, usize)| {
        let shift = i % 3 % 2;
        there(&random.values(&[n + shift], dtype).narrow(0, shift, n))
    };
    sizes().into_iter().enumerate().map(make).collect()
}

fn bits(xs: &[Tensor]) -> Vec<Vec<u8>> {
    xs.iter().map(Tensor::to_bytes).collect()
}

#[test]
fn many_parameters_are_stepped_like_each() {
    let mut random = Random(2);
    let adam = Adam {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-8,
        weight_decay: 0.1,
        amsgrad: true,
        decoupled: true,
        step: 3,
    };
    let step = OptimizerStep::Adam(adam);
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        let (mut ps, gs) = (tensors(&mut random, dtype), tensors(&mut random, dtype));
        let wide = dtype.accumulator();
        let state = |random: &mut Random| tensors(random, wide).iter().map(|x| x.square().copy()).collect::<Vec<_>>();
        let states = [state(&mut random), state(&mut random), state(&mut random)];
        let mut states: Vec<[Tensor; 3]> =
            (0..ps.len()).map(|i| [0, 1, 2].map(|k: usize| states[k][i].clone())).collect();
        let (mut each, mut each_state) = (ps.clone(), states.clone());
        for ((p, g), s) in each.iter_mut().zip(&gs).zip(&mut each_state) {
            step.apply(p, g, s);
        }
        let updates = ps.iter_mut().zip(&gs).zip(&mut states);
        let mut updates: Vec<Update> = updates.map(|((p, g), state)| Update { p, g, state }).collect();
        StepCell::new(step).apply_all(&mut updates);
        assert_eq!(bits(&ps), bits(&each), "{dtype}");
        assert_eq!(bits(&states.concat()), bits(&each_state.concat()), "{dtype}");
    }
}

#[test]
fn the_norm_of_all_and_their_scaling() {
    let mut random = Random(3);
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let xs = tensors(&mut random, dtype);
        let square = |x: &Tensor| x.to_f64_vec().iter().map(|v| v * v).sum::<f64>();
        let want = xs.iter().map(square).sum::<f64>().sqrt();
        let all: Vec<&Tensor> = xs.iter().collect();
        let norm = card().norm_of_all(&all).expect("a kernel");
        // In f64: as many roundings as there are numbers.
        assert!((norm.item::<f64>() - want).abs() <= 1e5 * f64::EPSILON * want, "{dtype}");
        assert_eq!(norm.to_bytes(), card().norm_of_all(&all).expect("a kernel").to_bytes(), "{dtype}");
        let factor = there(&Tensor::scalar(0.3f64));
        let mut scaled: Vec<Tensor> = xs.iter().map(Tensor::copy).collect();
        assert!(card().scale_all(&mut scaled.iter_mut().collect::<Vec<_>>(), &factor));
        let want: Vec<Tensor> = xs.iter().map(|x| (x.to_dtype(DType::F32) * 0.3).to_dtype(dtype)).collect();
        assert_eq!(bits(&scaled), bits(&want), "{dtype}");
    }
    let nothing = there(&Tensor::zeros([0]));
    assert_eq!(card().norm_of_all(&[&nothing]).expect("a kernel").item::<f64>(), 0.0);
    // A square would overflow.
    let large = there(&Tensor::new([3e30, 4e30f32]));
    assert_eq!((card().norm_of_all(&[&large]).expect("a kernel").item::<f64>() / 5e30).round(), 1.0);
}

#[test]
fn gradients_are_clipped_as_on_the_cpu() {
    let mut random = Random(4);
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        for (max_norm, norm_type) in [(1.0, 2.0), (1e9, 2.0), (1.0, 1.0), (1.0, f64::INFINITY), (1.0, 3.0)] {
            let values: Vec<Tensor> = [5, 1, 700].iter().map(|&n| random.values(&[n], dtype)).collect();
            let params: Vec<Param> = values.iter().map(|x| Param::new(x.zeros_like())).collect();
            let clip = |place: fn(&Tensor) -> Tensor| {
                let mut grads = Gradients::default();
                params.iter().zip(&values).for_each(|(p, g)| grads.insert(p, place(g)));
                let norm = clip_grad_norm(&mut grads, &params, max_norm, norm_type).item::<f64>();
                (norm, params.iter().flat_map(|p| grads.wrt(p).to_f64_vec()).collect::<Vec<_>>())
            };
            let ((here, want), (norm, got)) = (clip(Tensor::clone), clip(there));
            // Sums of 700 powers in the accumulator's type; on the CPU a half gradient is scaled by a factor of its own type.
            let (sum, each) = (1e3 * dtype.accumulator().epsilon(), 4.0 * dtype.epsilon());
            assert!((norm - here).abs() <= sum * here, "{dtype} {norm_type}: {norm}, not {here}");
            for (g, w) in got.iter().zip(&want) {
                assert!((g - w).abs() <= (sum + each) * w.abs(), "{dtype} {norm_type}: {g}, not {w}");
            }
        }
    }
    assert_eq!(clip_grad_norm(&mut Gradients::default(), [], 1.0, 2.0).item::<f64>(), 0.0);
}
