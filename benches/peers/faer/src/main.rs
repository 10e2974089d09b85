//! faer on the matrix products of `ferrograd-bench`. It has no bf16.
#![forbid(unsafe_code)]

use bench_measure::{Bench, shapes};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

fn main() {
    bench_measure::run("faer", &[("gemm", products), ("layouts", layouts)]);
}

fn products(bench: &Bench) {
    for (m, k, n) in shapes::GEMM {
        product(bench, &format!("gemm f32 {m}×{k}×{n}"), (m, k, n), false, false);
    }
    let (m, k, n) = shapes::GEMM_WEIGHT;
    product(bench, &format!("gemm f32 {m}×{k}×{n}, weight N×K"), (m, k, n), false, true);
}

fn layouts(bench: &Bench) {
    for (m, k, n) in shapes::LAYOUT_GEMM {
        for (layout, a_transposed, b_transposed) in shapes::LAYOUTS {
            product(bench, &format!("gemm f32 {m}×{k}×{n} {layout}"), (m, k, n), a_transposed, b_transposed);
        }
    }
}

/// A matrix of so many rows, stored by row or, transposed, by column.
fn stored(numbers: &[f32], rows: usize, columns: usize, transposed: bool) -> MatRef<'_, f32> {
    if transposed {
        MatRef::from_column_major_slice(numbers, rows, columns)
    } else {
        MatRef::from_row_major_slice(numbers, rows, columns)
    }
}

/// `[M, K] × [K, N]`.
fn product(bench: &Bench, name: &str, (m, k, n): (usize, usize, usize), a_transposed: bool, b_transposed: bool) {
    if !bench.wants(name) {
        return;
    }
    let (a, b, mut c) = (vec![1.01f32; m * k], vec![0.99f32; k * n], vec![0f32; m * n]);
    let (a, b) = (stored(&a, m, k, a_transposed), stored(&b, k, n, b_transposed));
    let par = if bench.threads == 1 { Par::Seq } else { Par::rayon(bench.threads) };
    bench.case(name, || matmul(MatMut::from_row_major_slice_mut(&mut c, m, n), Accum::Replace, a, b, 1.0, par));
    // 1.01 · 0.99 = 0.9999, K times.
    assert!(c.iter().all(|x| (x / k as f32 - 0.9999).abs() < 1e-3), "faer: a wrong product");
}
