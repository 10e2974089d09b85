//! Products of f32 whose operands are rounded to TF32. A program of its own: the precision is the whole program's.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{by_wgmma, card, in_launches, is_product, there};
use ferrograd_tensor::{Activation, DType, Epilogue, MatmulPrecision, Tensor, set_matmul_precision};
use layouts::Random;

#[test]
fn products_however_the_operands_lie() {
    set_matmul_precision(MatmulPrecision::Tf32);
    let mut random = Random(1);
    // Eighths, which TF32 holds.
    let mut matrix = |rows: usize, columns: usize, transposed: bool, gap: usize| match transposed {
        true => random.values(&[columns, rows + gap], DType::F32).narrow(1, gap, rows).t(),
        false => random.values(&[rows, columns + gap], DType::F32).narrow(1, gap, columns),
    };
    // The last two in two parts of K each.
    for (m, n, k) in [
        (64, 64, 32),
        (17, 33, 65),
        (129, 66, 40),
        (2, 200, 15),
        (65, 7, 129),
        (129, 1000, 48),
        (30, 21, 1030),
        (130, 132, 1088),
    ] {
        for (a_transposed, b_transposed, gap) in
            [(false, false, 0), (false, true, 4), (true, false, 1), (true, true, 0), (false, false, 3), (true, true, 4)]
        {
            let (a, b) = (matrix(m, k, a_transposed, gap), matrix(k, n, b_transposed, gap));
            let (a2, b2) = (there(&a), there(&b));
            let got = in_launches(1 + (k > 1023) as usize, "tf32", || card().matmul(&a2, &b2));
            is_product("tf32", &got, &a, &b, None);
            let bias = matrix(1, n, false, 0).reshape([n]);
            let got = card().matmul_bias(&there(&a), &there(&b), &there(&bias)).expect("a kernel");
            is_product("tf32 with a bias", &got, &a, &b, Some(&bias));
            // With an epilogue: f32 is not rounded in between.
            let bias2 = there(&bias);
            let epilogue = Epilogue { bias: Some(&bias2), activation: Activation::Relu, residual: None };
            let (y, z) = card().matmul_epilogue(&a2, &b2, &epilogue, true).expect("a kernel");
            let z = z.expect("what it was asked to keep");
            is_product("tf32 before an activation", &z, &a, &b, Some(&bias));
            assert_eq!(y.to_vec::<f32>(), z.relu().to_vec::<f32>());
        }
    }
    for _ in 0..6 {
        let (a, b) = (random.strided(&[2, 3, 19, 40], DType::F32), random.strided(&[2, 3, 40, 24], DType::F32));
        is_product("a batch in tf32", &card().matmul(&there(&a), &there(&b)), &a, &b, None);
    }
}

/// On Hopper, operands that both lie along K go through the copy engine, which rounds them.
#[test]
fn products_of_runs_along_k() {
    set_matmul_precision(MatmulPrecision::Tf32);
    let mut random = Random(2);
    let mut matrix = |shape: &[usize]| {
        let (mut dims, k) = (shape.to_vec(), shape[shape.len() - 1]);
        dims[shape.len() - 1] = k.next_multiple_of(4);
        random.values(&dims, DType::F32).narrow(-1, 0, k)
    };
    // In small tiles, large ones, with rows of C that begin at odd places, and in parts of K.
    for (m, n, k) in [
        (65, 72, 4),
        (128, 128, 32),
        (130, 67, 65),
        (130, 1000, 100),
        (505, 480, 648),
        (70, 66, 1600),
        (250, 201, 1100),
    ] {
        let (a, b) = (matrix(&[m, k]), matrix(&[n, k]).t());
        let bias = matrix(&[n]);
        by_wgmma(1 + (k > 1023) as usize, &a, &b, (m % 2 == 0).then_some(&bias));
    }
    let (a, b) = (matrix(&[2, 3, 72, 40]), matrix(&[2, 3, 80, 40]).transpose(-2, -1));
    by_wgmma(1, &a, &b, None);
    by_wgmma(1, &a.narrow(0, 1, 1).expand([2, 3, 72, 40]), &b, None);
    // Operands that lie across K, or begin at odd places, are laid along it first where that pays.
    let (wide, narrow) = (matrix(&[4096, 2048]), matrix(&[72, 2052]));
    by_wgmma(2, &narrow.narrow(1, 3, 2048), &wide.t(), None);
    by_wgmma(2, &wide, &narrow.narrow(1, 4, 2048).t().copy(), None);
    // Before, within and after an epilogue; f32 is not rounded in between.
    let (a, b, bias, r) = (matrix(&[130, 96]), matrix(&[70, 96]).t(), matrix(&[70]), matrix(&[130, 70]));
    let (a2, b2, bias2, r2) = (there(&a), there(&b), there(&bias), there(&r));
    let epilogue = Epilogue { bias: Some(&bias2), activation: Activation::Relu, residual: Some(&r2) };
    let (y, z) = card().matmul_epilogue(&a2, &b2, &epilogue, true).expect("a kernel");
    let z = z.expect("what it was asked to keep");
    is_product("before an activation", &z, &a, &b, Some(&bias));
    assert_eq!(y.to_vec::<f32>(), (&z.relu() + &r2).to_vec::<f32>());
    // What is not finite is not hidden.
    let mut values = vec![1f32; 80 * 40];
    (values[3], values[79 * 40 + 39]) = (f32::NAN, f32::INFINITY);
    by_wgmma(1, &Tensor::from_vec(values, [80, 40]), &Tensor::zeros([72, 40]).t(), None);
}

#[test]
fn many_operands_are_rounded_to_the_nearest() {
    set_matmul_precision(MatmulPrecision::Tf32);
    // Between two numbers of TF32, nearer to the one or the other, and no halves.
    let half = 2f32.powi(-11);
    let values: Vec<f32> =
        (0..72).map(|i| (1.0 + [0.9, 1.1, 2.9, 3.1][i % 4] * half) * [1.0, -1.0][i / 4 % 2]).collect();
    let want: Vec<f32> = (0..72).map(|i| (1.0 + [0.0, 2.0, 2.0, 4.0][i % 4] * half) * [1.0, -1.0][i / 4 % 2]).collect();
    let column = Tensor::from_vec(values, [72, 1]);
    let padded = Tensor::cat(&[&column, &Tensor::zeros([72, 3])], 1);
    let ones = Tensor::ones([72, 4]).t();
    let got = card().matmul(&there(&padded), &there(&ones)).narrow(1, 3, 1);
    assert_eq!(got.to_vec::<f32>(), want);
    let got = card().matmul(&there(&ones.t()), &there(&padded.t())).narrow(0, 3, 1);
    assert_eq!(got.to_vec::<f32>(), want);
}

#[test]
fn operands_are_rounded_to_the_nearest() {
    set_matmul_precision(MatmulPrecision::Tf32);
    // To 10 bits after the point: up, down, and halves away from zero.
    let (step, half) = (2f32.powi(-10), 2f32.powi(-11));
    let a = Tensor::new([[1.0 + half], [1.0 + 0.9 * half], [1.0 + 1.1 * half], [-1.0 - half]]);
    for (a, ones) in [(a.clone(), Tensor::ones([1, 8])), (a.t().copy().t(), Tensor::ones([8, 1]).t())] {
        let got = card().matmul(&there(&a), &there(&ones)).narrow(1, 3, 1);
        assert_eq!(got.to_vec::<f32>(), [1.0 + step, 1.0, 1.0 + step, -1.0 - step]);
    }
}
