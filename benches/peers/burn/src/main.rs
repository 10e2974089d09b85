//! burn with its backend flex, its fastest on the CPU in pure Rust, on the cases of `ferrograd-bench`.
#![forbid(unsafe_code)]
#![recursion_limit = "256"]

mod models;
mod ops;
mod transformer;

use bench_measure::Bench;
use burn::tensor::{Device, Distribution, Int, Tensor};
use std::hint::black_box;

fn main() {
    bench_measure::run(
        "burn",
        &[
            ("gemm", ops::gemm),
            ("layouts", ops::layouts),
            ("attention", ops::attention),
            ("elementwise", ops::elementwise),
            ("lstm", models::lstm),
            ("gpt", models::gpt),
            ("bert", models::bert),
            ("cnn", models::cnn),
            ("decode", models::decode),
            ("overhead", ops::overhead),
        ],
    );
}

/// Times something; flex computes at once, so the result is there when the call returns.
fn case<T>(bench: &Bench, name: &str, mut f: impl FnMut() -> T) {
    bench.case(name, || drop(black_box(f())));
}

/// Where nothing is recorded.
fn inference() -> Device {
    Device::flex()
}

/// Where gradients are recorded.
fn training() -> Device {
    Device::flex().autodiff()
}

/// Normally distributed numbers.
fn randn<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

/// Whole numbers below `high`.
fn randint<const D: usize>(high: usize, shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    let floats = Tensor::<D>::random(shape, Distribution::Uniform(0.0, high as f64), device);
    floats.int().clamp_max(high as i64 - 1)
}
