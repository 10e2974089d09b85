//! candle on the cases of `ferrograd-bench`, built without MKL.
//!
//! Its fused layer norm and softmax have no backward, so training steps use the versions composed of simpler operations
//! that candle offers for it.
#![forbid(unsafe_code)]

mod models;
mod ops;
mod transformer;

use bench_measure::Bench;
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarMap};

const CPU: Device = Device::Cpu;

fn main() {
    bench_measure::run(
        "candle",
        &[
            ("gemm", |b| ops::gemm(b).unwrap()),
            ("layouts", |b| ops::layouts(b).unwrap()),
            ("attention", |b| ops::attention(b).unwrap()),
            ("elementwise", |b| ops::elementwise(b).unwrap()),
            ("lstm", |b| models::lstm(b).unwrap()),
            ("gpt", |b| models::gpt(b).unwrap()),
            ("bert", |b| models::bert(b).unwrap()),
            ("cnn", |b| models::cnn(b).unwrap()),
            ("decode", |b| models::decode(b).unwrap()),
            ("overhead", ops::overhead),
        ],
    );
}

/// Times something that can fail.
fn case<T>(bench: &Bench, name: &str, mut f: impl FnMut() -> Result<T>) {
    bench.case(name, || drop(std::hint::black_box(f().unwrap())));
}

/// Normally distributed numbers.
fn randn(shape: &[usize]) -> Result<Tensor> {
    Tensor::randn(0f32, 1f32, shape, &CPU)
}

/// Whole numbers below `high`.
fn randint(high: u32, shape: &[usize]) -> Result<Tensor> {
    Tensor::rand(0f32, high as f32, shape, &CPU)?.to_dtype(DType::U32)
}

/// AdamW over all of a model's variables; Adam without decay.
fn adam(variables: &VarMap, weight_decay: f64) -> Result<AdamW> {
    AdamW::new(variables.all_vars(), ParamsAdamW { lr: 1e-4, weight_decay, ..Default::default() })
}
