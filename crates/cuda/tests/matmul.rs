//! Matrix products on the card: every kernel, at shapes that fill no tile, however the operands lie in memory.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{card, counted, in_launches, is_product, there};
use ferrograd_tensor::backend::Backend;
use ferrograd_tensor::cpu::CpuBackend;
use ferrograd_tensor::{DType, Tensor};
use layouts::Random;

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug)]
struct Lie {
    /// Are its columns the runs, and not its rows?
    transposed: bool,
    /// Numbers between two runs, and before the first.
    gap: usize,
}
/// Both ways, each where every run begins at a multiple of 16 bytes and where none but few do.
const LIES: [Lie; 4] = [
    Lie { transposed: false, gap: 0 },
    Lie { transposed: true, gap: 0 },
    Lie { transposed: false, gap: 1 },
    Lie { transposed: true, gap: 1 },
];

/// A matrix, or several, that lie so; between the runs are NaNs, which nobody may read.
fn matrix(random: &mut Random, shape: &[usize], dtype: DType, lie: Lie) -> Tensor {
    let mut dims = shape.to_vec();
    let r = dims.len();
    if lie.transposed {
        dims.swap(r - 2, r - 1);
    }
    let runs = random.values(&dims, dtype);
    dims[r - 1] = dims[r - 1].next_multiple_of(8) + lie.gap;
    let mut all = CpuBackend.full(&dims[..].into(), dtype, f64::NAN);
    let region = all.narrow(-1, lie.gap, runs.dim(-1)).layout().clone();
    CpuBackend.write(&mut all, &region, &runs);
    let x = Tensor::from_buffer(all.buffer().clone(), region, dtype, all.device());
    if lie.transposed { x.transpose(-2, -1) } else { x }
}

fn named(a: &Tensor, b: &Tensor) -> String {
    let strides = [a, b].map(|x| &x.layout().strides);
    format!("{}{} × {} of strides {strides:?}", a.dtype(), a.shape(), b.shape())
}

#[track_caller]
fn check(a: &Tensor, b: &Tensor, bias: Option<&Tensor>) {
    let (a2, b2) = (there(a), there(b));
    let got = match bias {
        None => card().matmul(&a2, &b2),
        Some(bias) => card().matmul_bias(&a2, &b2, &there(bias)).expect("a kernel"),
    };
    is_product(&named(a, b), &got, a, b, bias);
}

/// The same of a product of matrices that no kernel needs a copy of: in one launch, or in two if K is cut into parts.
#[track_caller]
fn check_launches(launches: usize, a: &Tensor, b: &Tensor, bias: Option<&Tensor>) {
    let (a2, b2, bias2) = (there(a), there(b), bias.map(there));
    let got = in_launches(launches, &named(a, b), || match &bias2 {
        None => card().matmul(&a2, &b2),
        Some(bias) => card().matmul_bias(&a2, &b2, bias).expect("a kernel"),
    });
    is_product(&named(a, b), &got, a, b, bias);
}

#[test]
fn products_however_the_operands_lie() {
    let mut random = Random(1);
    for dtype in FLOATS {
        for (m, n, k) in [(64, 64, 32), (17, 33, 65), (129, 66, 40), (2, 200, 15), (65, 7, 129)] {
            for (lie_a, lie_b) in LIES.into_iter().flat_map(|a| LIES.map(|b| (a, b))) {
                let a = matrix(&mut random, &[m, k], dtype, lie_a);
                check(&a, &matrix(&mut random, &[k, n], dtype, lie_b), None);
            }
        }
    }
    no_bank_conflicts();
}

#[test]
fn products_of_any_size_with_a_bias() {
    const SIZES: [usize; 12] = [1, 7, 15, 16, 17, 31, 33, 63, 65, 127, 129, 200];
    let mut random = Random(2);
    for dtype in FLOATS {
        for i in 0..12 {
            let [m, n, k] = [i, 5 * i + 3, 7 * i + 10].map(|i| SIZES[i % 12]);
            let [a, b, bias] = [&[m, k][..], &[k, n], &[n]].map(|shape| random.values(shape, dtype));
            check(&a, &b, Some(&bias));
            check(&b.transpose(0, 1), &a.transpose(0, 1), None);
        }
        for (m, n, k) in [(0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 5, 0), (5, 1, 0), (0, 0, 0)] {
            let [a, b, bias] = [&[m, k][..], &[k, n], &[n]].map(|shape| random.values(shape, dtype));
            check(&a, &b, Some(&bias));
            check(&a, &b, None);
        }
    }
}

#[test]
fn matrices_times_vectors() {
    let mut random = Random(5);
    for dtype in FLOATS {
        // A row for a warp and for a block, rows side by side; K in one part and in several.
        for (rows, k) in [(1, 1), (1, 700), (5, 300), (40, 700), (64, 129), (1030, 33), (72, 16)] {
            for (lie_matrix, lie_vector) in LIES.into_iter().flat_map(|a| LIES.map(|b| (a, b))) {
                let matrix = matrix(&mut random, &[rows, k], dtype, lie_matrix);
                let vector = self::matrix(&mut random, &[k, 1], dtype, lie_vector);
                check(&matrix, &vector, Some(&random.values(&[1], dtype)));
                check(&vector.transpose(0, 1), &matrix.transpose(0, 1), Some(&random.values(&[rows], dtype)));
            }
        }
        for _ in 0..6 {
            check(&random.strided(&[2, 3, 19, 40], dtype), &random.strided(&[2, 3, 40, 1], dtype), None);
            check(&random.strided(&[2, 3, 1, 300], dtype), &random.strided(&[2, 3, 300, 24], dtype), None);
        }
    }
}

#[test]
fn batches_of_products() {
    let mut random = Random(3);
    for dtype in FLOATS {
        for _ in 0..12 {
            check(&random.strided(&[2, 3, 19, 40], dtype), &random.strided(&[2, 3, 40, 24], dtype), None);
        }
        let a = matrix(&mut random, &[3, 2, 24, 16], dtype, LIES[0]);
        let b = matrix(&mut random, &[3, 2, 16, 40], dtype, LIES[1]);
        check(&a, &b, None);
        check(&a.transpose(0, 1), &b.transpose(0, 1), None);
        check(&a.narrow(0, 1, 1).expand([3, 2, 24, 16]), &b, None);
    }
}

#[test]
fn products_that_fill_the_card() {
    let mut random = Random(4);
    for (dtype, lie_a, lie_b) in
        FLOATS.into_iter().flat_map(|d| LIES.into_iter().flat_map(move |a| LIES.map(|b| (d, a, b))))
    {
        let a = matrix(&mut random, &[1, 129, 48], dtype, lie_a).expand([5, 129, 48]);
        check(&a, &matrix(&mut random, &[1, 48, 130], dtype, lie_b).expand([5, 48, 130]), None);
    }
    let mut large = |shape: &[usize], lie| matrix(&mut random, shape, DType::BF16, lie);
    // More slices than the ring has places; more tiles than a band.
    check(&large(&[1, 72, 300], LIES[0]).expand([140, 72, 300]), &large(&[140, 300, 72], LIES[1]), None);
    check(&large(&[1400, 16], LIES[0]), &large(&[16, 1600], LIES[2]), None);
    no_bank_conflicts();
}

#[test]
fn sums_over_a_long_k_in_parts() {
    let mut random = Random(6);
    for (i, dtype) in FLOATS.into_iter().enumerate() {
        for (j, (lie_a, lie_b)) in LIES.into_iter().flat_map(|a| LIES.map(|b| (a, b))).enumerate() {
            // In small tiles and, f64 apart, in large ones, C's rows beginning at odd places and at even ones.
            let sizes = [(17, 33, 1030), (66, 70, 1100), (130, 129, 1090), (30, 24, 1536)];
            let (m, n, k) = sizes[if j % 4 == 0 { (i + j / 4) % 4 } else { 3 * (j % 2) }];
            let (a, b) = (matrix(&mut random, &[m, k], dtype, lie_a), matrix(&mut random, &[k, n], dtype, lie_b));
            let bias = random.values(&[n], dtype);
            let in_parts = dtype != DType::F64 || m < 130;
            check_launches(1 + in_parts as usize, &a, &b, (j % 3 > 0).then_some(&bias));
        }
        let a = matrix(&mut random, &[2, 20, 1100], dtype, LIES[i]);
        let b = matrix(&mut random, &[1, 1100, 35], dtype, LIES[3 - i]).expand([2, 1100, 35]);
        check_launches(2, &a, &b, None);
        // Shorter than two parts.
        check_launches(1, &a.narrow(2, 8, 1023), &b.narrow(1, 8, 1023), None);
        // One that is not finite in the first part, and one in the last.
        let mut a = vec![1.0; 5 * 1100];
        (a[3], a[4 * 1100 + 1099]) = (f64::NAN, f64::INFINITY);
        check_launches(
            2,
            &Tensor::from_vec(a, [5, 1100]).to_dtype(dtype),
            &Tensor::zeros([1100, 6]).to_dtype(dtype),
            None,
        );
    }
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    for dtype in FLOATS {
        for (m, n) in [(20, 30), (1, 30), (20, 1)] {
            let mut a = vec![1.0; m * 40];
            // Both in products with zeros.
            (a[3], a[(m - 1) * 40 + 39]) = (f64::NAN, f64::INFINITY);
            let a = Tensor::from_vec(a, [m, 40]).to_dtype(dtype);
            check(&a, &Tensor::zeros([40, n]).to_dtype(dtype), None);
            check(&Tensor::zeros([n, 40]).to_dtype(dtype), &a.transpose(0, 1), None);
        }
    }
}

/// Under the emulator: does `ldmatrix` never wait for a bank of shared memory?
#[track_caller]
fn no_bank_conflicts() {
    assert_eq!(counted("emulator_count_bank_conflicts").unwrap_or(0), 0);
}
