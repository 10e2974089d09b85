//! `cargo bench`: single ops, without peers; fused ones beside what they are composed of.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ferrograd::prelude::*;
use ferrograd::tensor::{Epilogue, ops::rope};
use std::hint::black_box;

fn matmul(c: &mut Criterion) {
    let mut group = c.benchmark_group("matmul");
    for n in [64usize, 256, 512] {
        let (a, b) = (Tensor::randn([n, n]), Tensor::randn([n, n]));
        group.throughput(Throughput::Elements(2 * (n * n * n) as u64));
        group.bench_with_input(BenchmarkId::from_parameter(n), &n, |bench, _| bench.iter(|| black_box(a.matmul(&b))));
    }
}

fn elementwise(c: &mut Criterion) {
    let mut group = c.benchmark_group("elementwise 1M");
    let x = Tensor::randn([1024, 1024]);
    group.throughput(Throughput::Elements(1 << 20));
    group.bench_function("add", |b| b.iter(|| black_box(&x + &x)));
    group.bench_function("gelu", |b| b.iter(|| black_box(x.gelu())));
    group.bench_function("softmax", |b| b.iter(|| black_box(x.softmax(-1))));
    group.bench_function("layer_norm", |b| b.iter(|| black_box(x.layer_norm(&[1024], None, None, 1e-5))));
    group.bench_function("sum", |b| b.iter(|| black_box(x.sum())));
}

/// An operation and what it is composed of.
fn beside_its_parts<Y>(c: &mut Criterion, name: &str, fused: impl Fn() -> Y, composed: impl Fn() -> Y) {
    let mut group = c.benchmark_group(name);
    group.bench_function("fused", |b| b.iter(|| black_box(fused())));
    group.bench_function("composed", |b| b.iter(|| black_box(composed())));
}

fn fused(c: &mut Criterion) {
    let [x, y] = [(); 2].map(|()| Tensor::randn([1024, 1024]));
    beside_its_parts(c, "swiglu 1M", || x.gated(&y, Activation::Silu), || x.silu() * &y);
    beside_its_parts(c, "geglu 1M", || x.gated(&y, Activation::Gelu), || x.gelu() * &y);
    let norm = |sum: Tensor| (sum.layer_norm(&[1024], None, None, 1e-5), sum);
    let fused = || x.add_layer_norm(&y, &[1024], None, None, 1e-5);
    beside_its_parts(c, "add_layer_norm 1M", fused, || norm(&x + &y));
    let norm = |sum: Tensor| (sum.rms_norm(&[1024], None, 1e-5), sum);
    beside_its_parts(c, "add_rms_norm 1M", || x.add_rms_norm(&y, &[1024], None, 1e-5), || norm(&x + &y));

    let heads = Tensor::randn([1, 8, 1024, 128]);
    let [cos, sin] = [(); 2].map(|()| Tensor::randn([1024, 64]));
    let pairs = RotaryPairs::Halves;
    let composed = || rope::composed(&heads, &cos, &sin, pairs, false);
    beside_its_parts(c, "rope 1M", || heads.rope(&cos, &sin, pairs), composed);

    let [x, w1, w2] = [[128, 256], [1024, 256], [256, 1024]].map(|shape| Var::constant(Tensor::randn(shape)));
    let [b1, b2] = [1024, 256].map(|n| Var::constant(Tensor::randn(n)));
    let fused = || x.feed_forward([&w1, &w2], [Some(&b1), Some(&b2)], Activation::GeluTanh);
    let composed = || x.linear(&w1, Some(&b1)).gelu_tanh().linear(&w2, Some(&b2));
    beside_its_parts(c, "feed_forward 128×256×1024", fused, composed);
    let [x, w1, b1] = [x, w1, b1].map(Var::into_tensor);
    let epilogue = || Epilogue { bias: Some(&b1), activation: Activation::GeluTanh, residual: None };
    let composed = || x.linear(&w1, Some(&b1)).gelu_tanh();
    beside_its_parts(c, "linear, bias, gelu 128×256×1024", || x.linear_with(&w1, &epilogue()), composed);
}

/// What one recorded operation costs beside its arithmetic.
fn overhead(c: &mut Criterion) {
    let mut group = c.benchmark_group("overhead");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("1000 scalar adds, forward + backward", |b| {
        let x = Var::leaf(Tensor::scalar(1.0f32));
        b.iter(|| {
            let y = (0..1000).fold(x.clone(), |y, _| y + &x);
            black_box(y.backward())
        })
    });
}

criterion_group!(benches, matmul, elementwise, fused, overhead);
criterion_main!(benches);
