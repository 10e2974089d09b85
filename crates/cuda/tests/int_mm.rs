//! Products of 8-bit integers on the card, exactly those of the CPU.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{counted, in_launches, there};
use ferrograd_tensor::{DType, Tensor};
use layouts::Random;

/// All values of a byte.
fn bytes(random: &mut Random, shape: &[usize]) -> Tensor {
    let values: Vec<i8> = (0..shape.iter().product()).map(|_| random.below(256) as u8 as i8).collect();
    Tensor::from_vec(values, shape)
}

#[track_caller]
fn check(a: &Tensor, b: &Tensor) {
    let got = there(a).int_mm(&there(b));
    assert_eq!((got.dtype(), got.dims()), (DType::I32, &[a.dim(0), b.dim(1)][..]));
    let strides = [a, b].map(|x| &x.layout().strides);
    assert!(got.to_vec::<i32>() == a.int_mm(b).to_vec::<i32>(), "{} × {} of strides {strides:?}", a.shape(), b.shape());
}

#[test]
fn products_however_the_operands_lie() {
    let mut random = Random(1);
    for (m, n, k) in
        [(64, 64, 64), (17, 33, 65), (1, 40, 100), (65, 1, 7), (129, 66, 48), (250, 260, 80), (20, 20, 400)]
    {
        for (transposed_a, transposed_b, gap) in
            [(false, true, 0), (false, true, 1), (true, false, 0), (true, true, 16)]
        {
            let mut matrix = |rows: usize, columns: usize, transposed: bool| match transposed {
                true => bytes(&mut random, &[columns, rows + gap]).narrow(1, gap, rows).t(),
                false => bytes(&mut random, &[rows, columns + gap]).narrow(1, gap, columns),
            };
            check(&matrix(m, k, transposed_a), &matrix(k, n, transposed_b));
        }
    }
    for _ in 0..6 {
        check(&random.strided(&[19, 40], DType::I8), &random.strided(&[40, 24], DType::I8));
    }
    assert_eq!(counted("emulator_count_bank_conflicts").unwrap_or(0), 0);
}

#[test]
fn of_a_long_k_in_parts() {
    let mut random = Random(2);
    // In parts of 512 and more, the last of which is shorter; a K that is not worth two.
    for (m, n, k, launches) in [(20, 33, 1030, 2), (64, 70, 1600, 2), (20, 33, 1023, 1)] {
        for (gap_a, gap_b) in [(0, 0), (1, 0), (0, 16)] {
            let a = bytes(&mut random, &[m, k + gap_a]).narrow(1, gap_a, k);
            let b = bytes(&mut random, &[n, k + gap_b]).narrow(1, gap_b, k).t();
            let (a2, b2) = (there(&a), there(&b));
            let c = in_launches(launches, "int_mm", || a2.int_mm(&b2));
            assert!(c.to_vec::<i32>() == a.int_mm(&b).to_vec::<i32>(), "{} × {}", a.shape(), b.shape());
        }
    }
}

/// 2¹⁷ · 128² is 2³¹: one too many.
#[test]
fn sums_wrap() {
    const K: usize = (1 << 17) + 16;
    let [low, high] = [-128i8, 127].map(|x| Tensor::from_vec(vec![x; K], [1, K]));
    let (a, b) = (Tensor::cat(&[&low, &high], 0), Tensor::cat(&[&low, &high], 0).t());
    let products = [128 * 128, -128 * 127, 127 * 127].map(|product: i64| (product * K as i64) as i32);
    let [ll, lh, hh] = products;
    assert!(ll < 0 && lh < 0 && hh > 0);
    for (a, b) in [(a.clone(), b.clone()), (there(&a), there(&b))] {
        assert_eq!(a.int_mm(&b).to_vec::<i32>(), [ll, lh, lh, hh]);
    }
}

#[test]
fn of_nothing_and_in_one_launch() {
    for (m, n, k) in [(0, 3, 2), (3, 0, 2), (3, 2, 0)] {
        check(&Tensor::zeros([m, k]).to_dtype(DType::I8), &Tensor::zeros([k, n]).to_dtype(DType::I8));
    }
    let [a, b] =
        [there(&Tensor::ones([20, 48]).to_dtype(DType::I8)), there(&Tensor::ones([30, 48]).to_dtype(DType::I8)).t()];
    let c = in_launches(1, "int_mm", || a.int_mm(&b));
    assert_eq!(c.to_vec::<i32>(), [48; 600]);
}
