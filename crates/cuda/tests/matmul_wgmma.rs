//! Matrix products on Hopper's tensor cores, at shapes that fill no tile, however the operands lie in memory; on other cards
//! these are products like any other.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{by_wgmma, counted};
use ferrograd_tensor::{DType, Tensor};
use layouts::Random;

const HALVES: [DType; 2] = [DType::BF16, DType::F16];

/// Matrices whose lines, rows or else columns, begin at multiples of 16 bytes.
fn matrix(random: &mut Random, shape: &[usize], dtype: DType, in_columns: bool) -> Tensor {
    let mut dims = shape.to_vec();
    let r = dims.len();
    if in_columns {
        dims.swap(r - 2, r - 1);
    }
    let length = dims[r - 1];
    dims[r - 1] = length.next_multiple_of(8);
    let x = random.values(&dims, dtype).narrow(-1, 0, length);
    if in_columns { x.transpose(-2, -1) } else { x }
}

#[test]
fn small_and_large_tiles_of_operands_that_lie_either_way() {
    let mut random = Random(1);
    // Small tiles, and then large ones, of which some blocks of a cluster have little to do or nothing.
    for (i, (m, n, k)) in
        [(65, 72, 8), (128, 128, 64), (130, 200, 72), (130, 1000, 65), (250, 500, 200)].into_iter().enumerate()
    {
        for (columns_a, columns_b) in [(false, false), (false, true), (true, false), (true, true)] {
            let dtype = HALVES[(i + columns_a as usize + columns_b as usize) % 2];
            let a = matrix(&mut random, &[m, k], dtype, columns_a);
            let b = matrix(&mut random, &[k, n], dtype, columns_b);
            let bias = random.values(&[n], dtype);
            by_wgmma(1, &a, &b, (i % 2 == 0).then_some(&bias));
        }
    }
    assert_eq!(counted("emulator_count_bank_conflicts").unwrap_or(0), 0);
}

#[test]
fn more_slices_than_the_ring_has_places() {
    let mut random = Random(2);
    for (dtype, columns) in HALVES.into_iter().zip([false, true]) {
        // In small tiles, and in large ones; several for each block.
        by_wgmma(
            1,
            &matrix(&mut random, &[70, 1000], dtype, columns),
            &matrix(&mut random, &[1000, 88], dtype, !columns),
            None,
        );
        by_wgmma(
            1,
            &matrix(&mut random, &[505, 648], dtype, columns),
            &matrix(&mut random, &[648, 480], dtype, columns),
            None,
        );
    }
}

#[test]
fn rows_of_the_result_that_begin_anywhere() {
    let mut random = Random(3);
    for (dtype, (m, n)) in
        HALVES.into_iter().flat_map(|dtype| [(100, 67), (130, 129), (500, 505)].map(|size| (dtype, size)))
    {
        let bias = random.values(&[n], dtype);
        by_wgmma(
            1,
            &matrix(&mut random, &[m, 80], dtype, false),
            &matrix(&mut random, &[80, n], dtype, true),
            Some(&bias),
        );
    }
}

#[test]
fn batches_in_one_dimension_and_in_two() {
    let mut random = Random(4);
    for dtype in HALVES {
        let a = matrix(&mut random, &[2, 3, 72, 48], dtype, false);
        let b = matrix(&mut random, &[2, 3, 48, 80], dtype, true);
        by_wgmma(1, &a, &b, None);
        // Heads beside each other in every row, as attention has them.
        let heads = matrix(&mut random, &[2, 72, 3 * 48], dtype, false).reshape([2, 72, 3, 48]).transpose(1, 2);
        by_wgmma(1, &heads, &b, None);
        by_wgmma(1, &b.transpose(-2, -1), &heads.transpose(-2, -1), None);
        // One matrix for all of a batch, or of a part of it.
        by_wgmma(1, &a.narrow(0, 1, 1).expand([2, 3, 72, 48]), &b, None);
        by_wgmma(1, &a, &b.narrow(1, 0, 1).expand([2, 3, 48, 80]), None);
        by_wgmma(1, &a.narrow(0, 0, 1).narrow(1, 1, 1).expand([2, 3, 72, 48]), &b, None);
    }
}

#[test]
fn sums_over_a_long_k_in_parts() {
    let mut random = Random(5);
    // In small tiles, in large ones, with rows of C that begin at odd places, and in three parts.
    for (i, (m, n, k)) in [(66, 72, 1030), (250, 200, 1100), (130, 67, 1090), (70, 66, 1600)].into_iter().enumerate() {
        for (columns_a, columns_b) in [(false, false), (false, true), (true, false), (true, true)] {
            let dtype = HALVES[(i + columns_a as usize) % 2];
            let a = matrix(&mut random, &[m, k], dtype, columns_a);
            let b = matrix(&mut random, &[k, n], dtype, columns_b);
            let bias = random.values(&[n], dtype);
            by_wgmma(2, &a, &b, (columns_a != columns_b).then_some(&bias));
        }
    }
    // Matrices that move in two dimensions of a batch, and one that stays.
    let a = matrix(&mut random, &[1, 2, 66, 1040], DType::BF16, true);
    let b = matrix(&mut random, &[1, 1, 1040, 80], DType::BF16, true).expand([1, 2, 1040, 80]);
    by_wgmma(2, &a, &b, None);
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    for dtype in HALVES {
        let mut a = vec![1.0; 80 * 40];
        (a[3], a[79 * 40 + 39]) = (f64::NAN, f64::INFINITY);
        let a = Tensor::from_vec(a, [80, 40]).to_dtype(dtype);
        by_wgmma(1, &a, &Tensor::zeros([40, 72]).to_dtype(dtype), None);
        by_wgmma(1, &Tensor::zeros([72, 40]).to_dtype(dtype), &a.transpose(0, 1), None);
    }
}
