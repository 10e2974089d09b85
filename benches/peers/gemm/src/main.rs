//! The crate gemm on the matrix products of `ferrograd-bench`. It has no bf16.

use bench_measure::{Bench, shapes};
use gemm::Parallelism;

fn main() {
    bench_measure::run("gemm", &[("gemm", products), ("layouts", layouts)]);
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

/// The steps from row to row and from column to column of a matrix stored by row or, transposed, by column.
fn strides(rows: usize, columns: usize, transposed: bool) -> [isize; 2] {
    if transposed { [1, rows as isize] } else { [columns as isize, 1] }
}

/// `[M, K] × [K, N]`.
fn product(bench: &Bench, name: &str, (m, k, n): (usize, usize, usize), a_transposed: bool, b_transposed: bool) {
    if !bench.wants(name) {
        return;
    }
    let [a_row, a_column] = strides(m, k, a_transposed);
    let [b_row, b_column] = strides(k, n, b_transposed);
    let (a, b, mut c) = (vec![1.01f32; m * k], vec![0.99f32; k * n], vec![0f32; m * n]);
    let parallelism = if bench.threads == 1 { Parallelism::None } else { Parallelism::Rayon(bench.threads) };
    bench.case(name, || {
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        // SAFETY: the vectors have the lengths that the sizes and strides say, and `c` overlaps neither of the others.
        unsafe {
            #[rustfmt::skip]
            gemm::gemm(
                m, n, k,
                c, 1, n as isize, false,
                a, a_column, a_row,
                b, b_column, b_row,
                0.0, 1.0, false, false, false, parallelism,
            );
        }
    });
    // 1.01 · 0.99 = 0.9999, K times.
    assert!(c.iter().all(|x| (x / k as f32 - 0.9999).abs() < 1e-3), "gemm: a wrong product");
}
