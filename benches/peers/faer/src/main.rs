//! faer on the matrix products of `ferrograd-bench`. It has no bf16.
#![forbid(unsafe_code)]

use bench_measure::{Bench, shapes};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

fn main() {
    bench_measure::run("faer", &[("gemm", products)]);
}

fn products(bench: &Bench) {
    for (m, k, n) in shapes::GEMM {
        let b = vec![0.99f32; k * n];
        let b = MatRef::from_row_major_slice(&b, k, n);
        product(bench, &format!("gemm f32 {m}×{k}×{n}"), m, b);
    }
    let (m, k, n) = shapes::GEMM_WEIGHT;
    let weight = vec![0.99f32; n * k];
    let weight = MatRef::from_row_major_slice(&weight, n, k);
    product(bench, &format!("gemm f32 {m}×{k}×{n}, weight N×K"), m, weight.transpose());
}

/// `[M, K] × [K, N]`.
fn product(bench: &Bench, name: &str, m: usize, b: MatRef<f32>) {
    let (k, n) = b.shape();
    let (a, mut c) = (vec![1.01f32; m * k], vec![0f32; m * n]);
    let a = MatRef::from_row_major_slice(&a, m, k);
    let par = if bench.threads == 1 { Par::Seq } else { Par::rayon(bench.threads) };
    bench.case(name, || matmul(MatMut::from_row_major_slice_mut(&mut c, m, n), Accum::Replace, a, b, 1.0, par));
    // 1.01 · 0.99 = 0.9999, K times.
    assert!(c.iter().all(|x| (x / k as f32 - 0.9999).abs() < 1e-3), "faer: a wrong product");
}
