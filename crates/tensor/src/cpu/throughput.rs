//! Throughput of the vector kernels on one thread, at every level:
//! `RAYON_NUM_THREADS=1 cargo test --release -p ferrograd-tensor --lib throughput -- --ignored --nocapture`.

use super::level::Level;
use super::unary::*;
use super::*;
use ::half::{bf16, f16};
use std::hint::black_box;
use std::time::Instant;

/// Billions of elements per second: `n` per call, 16 Mi in all, the best of 10 passes.
fn rate(n: usize, mut f: impl FnMut()) -> f64 {
    let calls = (1 << 24) / n;
    let passes = (0..10).map(|_| {
        let start = Instant::now();
        (0..calls).for_each(|_| f());
        start.elapsed().as_secs_f64()
    });
    (calls * n) as f64 / passes.fold(f64::INFINITY, f64::min) / 1e9
}

fn print(name: &str, rates: impl IntoIterator<Item = f64>) {
    let columns: Vec<String> = rates.into_iter().map(|r| format!("{r:9.2}")).collect();
    println!("{name:20} {}", columns.join(" "));
}

/// Slices of 4096 elements: 16 KiB of `f32`, which the first-level cache holds.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    const N: usize = 4096;
    println!("{:20} {}", "Gelem/s", Level::ALL.map(|l| format!("{:>9}", l.usable().name())).join(" "));
    let x: Vec<f32> = (0..N).map(|i| i as f32 / 512.0 - 4.0).collect();
    let mut y = vec![0f32; N];
    macro_rules! unary {
        ($($op:ident)*) => {$(
            print(stringify!($op), Level::ALL.map(|l| rate(N, || map_at::<$op, f32>(l, black_box(&x), &mut y))));
        )*};
    }
    unary!(Exp Expm1 Log Log1p Tanh Sigmoid Erf Sin Cos Softplus Gelu GeluGrad GeluTanh GeluTanhGrad Silu SiluGrad);

    println!("\nrows of 512, at level {:?}", level::level());
    let n = 512;
    let rows = N / n;
    let (w, mut a, mut b) = (vec![1f32; n], vec![0f32; rows], vec![0f32; rows]);
    let (mut dw, mut db, mut z) = (vec![0f32; n], vec![0f32; n], vec![0f32; N]);
    let targets: Vec<i64> = (0..rows as i64).collect();
    let options = cross_entropy::Options::default();
    macro_rules! kernels {
        ($($name:literal: $body:expr;)*) => {$( print($name, [rate(N, || { black_box($body); })]); )*};
    }
    kernels! {
        "softmax": softmax::softmax(black_box(&x), &mut y, n);
        "log_softmax": softmax::log_softmax(black_box(&x), &mut y, n);
        "softmax backward": softmax::softmax_backward(black_box(&x), &y, &mut z, n);
        "layer_norm": layer_norm::layer_norm(black_box(&x), Some(&w), Some(&w), 1e-5, &mut y, &mut a, &mut b, n);
        "layer_norm backward": layer_norm::layer_norm_backward(
            black_box(&x), Some(&w), &a, &b, &y, &mut z, Some(&mut dw), Some(&mut db), n);
        "rms_norm": rms_norm::rms_norm(black_box(&x), Some(&w), 1e-5, &mut y, &mut a, n);
        "cross_entropy": cross_entropy::cross_entropy(black_box(&x), &targets, &options, &mut a, &mut b, n);
        "cross_entropy back": cross_entropy::cross_entropy_backward(black_box(&x), &targets, &b, &a, &options, &mut y, n);
        "sum": reduce::reduce::<reduce::Sum, f32>(black_box(&x));
        "max": reduce::reduce::<reduce::Max, f32>(black_box(&x));
        "dot": reduce::dot::<f32>(black_box(&x), &x);
        "mean_var": reduce::mean_var::<f32>(black_box(&x), 1.0);
        "sum of columns": reduce::reduce_columns::<reduce::Sum, f32>(black_box(&x), &mut dw, n);
    }
    let adam = optimizer::Adam {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        decoupled: true,
        amsgrad: false,
        step: 1,
    };
    let (mut m, mut v, mut p) = (vec![0f32; N], vec![0f32; N], vec![0f32; N]);
    let sgd =
        optimizer::Sgd { lr: 1e-3, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: true, first: false };
    let (mut brain, mut half, mut wide) = (vec![bf16::ZERO; N], vec![f16::ZERO; N], vec![0f64; N]);
    let mut mask = vec![false; N];
    kernels! {
        "adam": optimizer::adam(&mut p, black_box(&x), &mut m, &mut v, &adam);
        "sgd nesterov": optimizer::sgd(&mut p, black_box(&x), Some(&mut m), &sgd);
        "uniform f32": random::fill_uniform(black_box(&mut y[..]), 1, 2);
        "uniform f64": random::fill_uniform(black_box(&mut wide[..]), 1, 2);
        "normal f32": random::fill_normal(black_box(&mut y[..]), 1, 2);
        "bernoulli": random::fill_bernoulli(black_box(&mut mask[..]), 0.1, 1, 2);
        "f32 to bf16": half::Half::narrow(black_box(&x), &mut brain[..]);
        "bf16 to f32": half::Half::widen(black_box(&brain[..]), &mut y);
        "f32 to f16": half::Half::narrow(black_box(&x), &mut half[..]);
        "f16 to f32": half::Half::widen(black_box(&half[..]), &mut y);
    }
}
