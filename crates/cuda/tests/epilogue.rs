//! What products do with their sums before they round them: bias, activation and residual, and an activation's derivative. Every kernel
//! of products of matrices and of vectors.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{card, in_launches, is_product, there};
use ferrograd_tensor::backend::Backend;
use ferrograd_tensor::cpu::CpuBackend;
use ferrograd_tensor::{Activation, DType, Epilogue, Tensor};
use layouts::Random;

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// What kernels apply; all else is composed.
const FUSED: [Activation; 4] = [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu];

/// M, N, K, and the launches that it takes: small tiles and large ones, rows that begin at odd places and at even ones, K in parts.
const SIZES: [(usize, usize, usize, usize); 7] = [
    (17, 33, 40, 1),
    (30, 24, 1030, 2),
    (66, 72, 48, 1),
    (70, 67, 1040, 2),
    (130, 1000, 24, 1),
    (250, 255, 32, 1),
    (250, 260, 16, 1),
];

/// A matrix whose rows or columns are runs, beginning at multiples of 16 bytes or not; small, so that activations bend.
fn matrix(random: &mut Random, [m, n]: [usize; 2], dtype: DType, kind: usize) -> Tensor {
    let (lines, length) = if kind % 2 == 0 { (m, n) } else { (n, m) };
    let gap = [0, 1][kind / 2 % 2];
    let x = random.values(&[lines, length.next_multiple_of(8) + gap], dtype).mul_scalar(0.25).narrow(1, gap, length);
    if kind % 2 == 0 { x } else { x.t() }
}

/// Is `got` what is wanted but for roundings: one of its own type, some of the functions', and those of the sums, of which an activation
/// makes no more than 1.2 times as much?
#[track_caller]
fn close(what: &str, got: &Tensor, want: &Tensor, sums: &Tensor, others: &Tensor) {
    let (own, accumulator) = (got.dtype().epsilon(), got.dtype().accumulator().epsilon());
    let all =
        got.to_f64_vec().into_iter().zip(want.to_f64_vec()).zip(sums.to_f64_vec().into_iter().zip(others.to_f64_vec()));
    for (i, ((g, w), (sum, other))) in all.enumerate() {
        let bound = 1.2 * sum * accumulator + own * w.abs() + 8.0 * accumulator * (1.0 + other.abs());
        assert!((g - w).abs() <= bound, "{what}: element {i} is {g}, not {w} ± {bound:e}");
    }
}

fn wide(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F64)
}

/// K times the sum of magnitudes of each sum.
fn magnitudes(a: &Tensor, b: &Tensor) -> Tensor {
    CpuBackend.matmul(&wide(a).abs(), &wide(b).abs()).mul_scalar(a.dim(1) as f64)
}

#[track_caller]
fn check_forward(launches: usize, a: &Tensor, b: &Tensor, epilogue: &Epilogue, keep: bool) {
    let Epilogue { bias, activation, residual } = *epilogue;
    let what = format!(
        "{}{} × {}, bias: {}, {activation:?}, residual: {}, keep: {keep}",
        a.dtype(),
        a.shape(),
        b.shape(),
        bias.is_some(),
        residual.is_some()
    );
    let (a2, b2, bias2, residual2) = (there(a), there(b), bias.map(there), residual.map(there));
    let there = Epilogue { bias: bias2.as_ref(), activation, residual: residual2.as_ref() };
    let (y, z) = in_launches(launches, &what, || card().matmul_epilogue(&a2, &b2, &there, keep)).expect("a kernel");
    assert_eq!(z.is_some(), keep, "{what}");
    if let Some(z) = z {
        is_product(&what, &z, a, b, bias);
    }
    let mut want = CpuBackend.matmul(&wide(a), &wide(b));
    if let Some(bias) = bias {
        want = want + wide(bias);
    }
    let others = want.abs();
    want = want.activate(activation);
    if let Some(residual) = residual {
        want = want + wide(residual);
    }
    close(&what, &y, &want, &magnitudes(a, b), &others);
}

#[track_caller]
fn check_backward(launches: usize, a: &Tensor, b: &Tensor, activation: Activation, z: &Tensor) {
    let what = format!("{}{} × {}, derivative of {activation:?}", a.dtype(), a.shape(), b.shape());
    let (a2, b2, z2) = (there(a), there(b), there(z));
    let got = in_launches(launches, &what, || card().matmul_activation_grad(&a2, &b2, activation, &z2));
    let sums = CpuBackend.matmul(&wide(a), &wide(b));
    let want = wide(z).activate_backward(activation, &sums);
    close(&what, &got.expect("a kernel"), &want, &magnitudes(a, b), &sums);
}

/// Both directions, at every size, each with another activation and another part missing.
fn all(dtype: DType) {
    let mut random = Random(1);
    for (i, (m, n, k, launches)) in SIZES.into_iter().enumerate() {
        // Only small tiles are there for f64, and those of the larger results fill the card.
        for j in 0..4 {
            let kind = i + j;
            let (a, b) = (matrix(&mut random, [m, k], dtype, kind), matrix(&mut random, [k, n], dtype, kind / 2));
            let (bias, residual) = (random.values(&[n], dtype), random.values(&[m, n], dtype));
            let activation = FUSED[j];
            let epilogue = Epilogue {
                bias: (kind % 3 > 0).then_some(&bias),
                activation: if i == 6 { Activation::Identity } else { activation },
                residual: (kind % 4 > 0).then_some(&residual),
            };
            check_forward(launches, &a, &b, &epilogue, kind % 2 == 0);
            check_backward(launches, &a, &b, activation, &residual);
        }
    }
}

#[test]
fn in_f32() {
    all(DType::F32);
}

#[test]
fn in_f64() {
    all(DType::F64);
}

#[test]
fn in_f16() {
    all(DType::F16);
}

#[test]
fn in_bf16() {
    all(DType::BF16);
}

/// M, N, K, how the matrix lies (see [`matrix`]), and launches: of rows of it a warp or a block makes each; of those that lie side by side,
/// a lane, or a lane some, in parts where K is long.
const VECTORS: [(usize, usize, usize, usize, usize); 12] = [
    (1, 1, 7, 0, 1),
    (1, 37, 40, 1, 1),
    (1, 37, 300, 1, 1),
    (1, 1040, 300, 1, 1),
    (1, 72, 100, 0, 1),
    (1, 67, 100, 2, 1),
    (1, 72, 700, 0, 2),
    (1, 67, 300, 2, 2),
    (37, 1, 300, 0, 1),
    (1030, 1, 9, 2, 1),
    (72, 1, 300, 1, 2),
    (67, 1, 50, 3, 1),
];

/// [`all`] for products of vectors.
#[test]
fn of_vectors() {
    let mut random = Random(4);
    for dtype in FLOATS {
        for (i, (m, n, k, kind, launches)) in VECTORS.into_iter().enumerate() {
            let (of_a, of_b) = if m == 1 { (i, kind) } else { (kind, i) };
            let (a, b) = (matrix(&mut random, [m, k], dtype, of_a), matrix(&mut random, [k, n], dtype, of_b));
            let (bias, residual) = (random.values(&[n], dtype), random.values(&[m, n], dtype));
            for (j, activation) in FUSED.into_iter().enumerate() {
                let epilogue = Epilogue {
                    bias: ((i + j) % 3 > 0).then_some(&bias),
                    activation: if (i + j) % 5 > 0 { activation } else { Activation::Identity },
                    residual: ((i + j) % 4 > 0).then_some(&residual),
                };
                check_forward(launches, &a, &b, &epilogue, j % 2 == 0);
                check_backward(launches, &a, &b, activation, &residual);
            }
        }
    }
}

#[test]
fn what_lies_in_memory_anyhow() {
    let mut random = Random(2);
    for dtype in FLOATS {
        let (a, b) = (random.strided(&[20, 24], dtype), random.strided(&[24, 18], dtype));
        let bias = random.strided(&[18], dtype);
        // Transposed, and one element off.
        for (launches, residual) in [
            (2, random.values(&[18, 20], dtype).t()),
            (2, random.values(&[361], dtype).narrow(0, 1, 360).reshape([20, 18])),
        ] {
            let (a, b, bias) = (a.contiguous(), b.contiguous(), bias.contiguous());
            let epilogue = Epilogue { bias: Some(&bias), residual: Some(&residual), ..Epilogue::default() };
            check_forward(launches, &a, &b, &epilogue, false);
            check_backward(launches, &a, &b, Activation::Gelu, &residual);
        }
        check_linear(&a, &b.t(), &bias, Activation::Silu);
    }
}

/// The op, which may or may not find a kernel, on the card and on the CPU.
#[track_caller]
fn check_linear(x: &Tensor, w: &Tensor, bias: &Tensor, activation: Activation) {
    let linear = |x: Tensor, w: Tensor, bias: Tensor| {
        let epilogue = Epilogue { bias: Some(&bias), activation, residual: None };
        x.linear_with(&w, &epilogue)
    };
    let got = linear(there(x), there(w), there(bias));
    common::close("linear_with", &got, &linear(x.clone(), w.clone(), bias.clone()), 40.0);
}

#[test]
fn products_without_such_a_kernel_are_composed() {
    let mut random = Random(3);
    for (m, n, k) in [(4, 5, 0), (1, 5, 0), (0, 5, 3), (4, 0, 3), (0, 1, 3)] {
        let [x, w, bias] = [&[m, k][..], &[n, k], &[n]].map(|shape| random.values(shape, DType::F32));
        FUSED.into_iter().for_each(|activation| check_linear(&x, &w, &bias, activation));
    }
    let [x, w, bias] = [&[4, 30][..], &[20, 30], &[20]].map(|shape| random.values(shape, DType::F32));
    check_linear(&x, &w, &bias, Activation::Tanh);
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    for dtype in FLOATS {
        let mut a = vec![1.0; 70 * 16];
        (a[3], a[69 * 16 + 15]) = (f64::NAN, f64::INFINITY);
        let (a, b) =
            (there(&Tensor::from_vec(a, [70, 16]).to_dtype(dtype)), there(&Tensor::ones([16, 80]).to_dtype(dtype)));
        for activation in FUSED {
            let epilogue = Epilogue { activation, ..Epilogue::default() };
            let (y, _) = card().matmul_epilogue(&a, &b, &epilogue, false).expect("a kernel");
            let y = y.to_f64_vec();
            assert!(y[..80].iter().all(|y| y.is_nan()) && y[69 * 80..].iter().all(|&y| y == f64::INFINITY));
            assert!(y[80..69 * 80].iter().all(|y| y.is_finite()));
        }
    }
}
