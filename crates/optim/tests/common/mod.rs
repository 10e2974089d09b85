//! What the tests share.

use ferrograd_nn::Param;
use ferrograd_optim::*;
use ferrograd_tensor::Tensor;

/// Every optimiser by its name, with every switch that changes its state turned on in one of them.
pub fn every_optimizer(params: &[Param]) -> Vec<(&'static str, Box<dyn Optimizer>)> {
    let ps = || params.to_vec();
    let boxed: Vec<Box<dyn Optimizer>> = vec![
        Box::new(Sgd::new(ps()).lr(0.05).weight_decay(0.1)),
        Box::new(Sgd::new(ps()).lr(0.05).momentum(0.9).nesterov(true)),
        Box::new(Adam::new(ps()).lr(0.05).weight_decay(0.1)),
        Box::new(Adam::new(ps()).lr(0.05).amsgrad(true).betas(0.8, 0.9)),
        Box::new(AdamW::new(ps()).lr(0.05).betas(0.9, 0.99)),
        Box::new(RmsProp::new(ps()).lr(0.01)),
        Box::new(RmsProp::new(ps()).lr(0.01).centered(true).momentum(0.9)),
        Box::new(Adagrad::new(ps()).lr(0.1).lr_decay(0.1).initial_accumulator_value(0.2)),
        Box::new(Adadelta::new(ps())),
        Box::new(Lion::new(ps()).lr(0.01).weight_decay(0.1)),
        Box::new(Muon::new(ps()).lr(0.02)),
    ];
    boxed.into_iter().map(|o| (o.name(), o)).collect()
}

/// Numbers in [−1, 1) that depend on `seed` only.
pub fn noise(shape: [usize; 2], seed: u64) -> Tensor {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values = (0..shape[0] * shape[1]).map(|_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 40) as f32 / (1 << 23) as f32 - 1.0
    });
    Tensor::from_vec(values.collect(), shape)
}
