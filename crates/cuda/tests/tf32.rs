//! Products of f32 whose operands are rounded to TF32. A program of its own: the precision is the whole program's.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{card, in_launches, is_product, there};
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
