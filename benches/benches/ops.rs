//! `cargo bench`: single ops, without peers.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ferrograd::prelude::*;
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

criterion_group!(benches, matmul, elementwise, overhead);
criterion_main!(benches);
