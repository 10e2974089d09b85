//! What the tests share.

use ferrograd_nn::{Param, StateDict};
use ferrograd_optim::*;
use ferrograd_tensor::{DType, Tensor};
use safetensors::tensor::TensorView;
use std::collections::HashMap;

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

/// Writes a state dict as a safetensors file in memory and reads it again.
pub fn through_a_file(state: &StateDict) -> StateDict {
    let names = [
        (DType::F32, safetensors::Dtype::F32),
        (DType::F64, safetensors::Dtype::F64),
        (DType::I64, safetensors::Dtype::I64),
        (DType::U8, safetensors::Dtype::U8),
    ];
    let dtype = |d: DType| names.iter().find(|n| n.0 == d).expect("a dtype of state dicts").1;
    let bytes: Vec<_> = state.iter().map(|(n, t)| (n, dtype(t.dtype()), t.dims().to_vec(), t.to_bytes())).collect();
    let views: HashMap<&str, TensorView> = bytes
        .iter()
        .map(|(n, d, shape, b)| (*n, TensorView::new(*d, shape.clone(), b).expect("bytes that fit")))
        .collect();
    let file = safetensors::serialize(&views, None).expect("a file");
    let read = safetensors::SafeTensors::deserialize(&file).expect("a file");
    let back = |d| names.iter().find(|n| n.1 == d).expect("a dtype of state dicts").0;
    read.iter().map(|(n, v)| (n.to_string(), Tensor::from_bytes(v.data(), v.shape(), back(v.dtype())))).collect()
}
