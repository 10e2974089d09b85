//! Every step of a ladder computes the same.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{cuda, is_product, there};
use ferrograd_cuda::ladder::{ATTENTION, LAYER_NORM, MATMUL, RowStep, SOFTMAX};
use ferrograd_tensor::{DType, Tensor};
use layouts::Random;

#[test]
fn products() {
    let mut random = Random(1);
    for step in MATMUL.iter().filter(|step| step.runs_on(&cuda())) {
        let allowed = |x: usize| x.next_multiple_of(step.multiple);
        for (m, n, k) in [(1, 1, 1), (7, 15, 17), (33, 63, 65), (129, 130, 31), (70, 200, 127), (0, 8, 8), (8, 8, 0)] {
            let (n, k) = (allowed(n), allowed(k));
            let a = random.values(&[m, k], step.dtype);
            let b = random.values(&[n, k], step.dtype).transpose(0, 1);
            is_product(step.name, &step.matmul(&there(&a), &there(&b)), &a, &b, None);
        }
    }
}

/// Of all numbers, at most `roundings` of f32, relative to the larger of 1 and the number.
#[track_caller]
fn close(what: &str, got: &Tensor, want: &Tensor, roundings: f64) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    for (i, (g, w)) in got.to_f64_vec().into_iter().zip(want.to_f64_vec()).enumerate() {
        let bound = roundings * DType::F32.epsilon() * w.abs().max(1.0);
        assert!((g - w).abs() <= bound, "{what}: element {i} is {g}, not {w} ± {bound:e}");
    }
}

fn rows_are(steps: [RowStep; 5], want: impl Fn(&Tensor) -> Tensor) {
    let mut random = Random(2);
    for step in steps {
        for (rows, n) in [(1, 1), (300, 3), (5, 255), (3, 257), (2, 1030), (1, 8192), (0, 8), (3, 0)] {
            let n = usize::next_multiple_of(n, step.multiple);
            let x = random.values(&[n, rows], DType::F32).transpose(0, 1);
            let (got, what) = (step.apply(&there(&x)), format!("{} of [{rows}, {n}]", step.name));
            // A sum in some order has a rounding for each term at most, and there are two of them, one inside the other.
            close(&what, &got, &want(&x.to_dtype(DType::F64)), 8.0 + 2.0 * n as f64);
        }
    }
}

#[test]
fn softmax() {
    rows_are(SOFTMAX, |x| if x.numel() == 0 { x.clone() } else { x.softmax(1) });
}

#[test]
fn layer_norm() {
    rows_are(LAYER_NORM, |x| if x.numel() == 0 { x.clone() } else { x.layer_norm(&[x.dims()[1]], None, None, 1e-5) });
}

#[test]
fn attention() {
    let mut random = Random(3);
    for step in ATTENTION {
        for (heads, time) in [(1, 1), (2, 5), (1, 64), (3, 65), (1, 130), (0, 4), (2, 0)] {
            let mut operand = || random.values(&[heads, time, 64], step.dtype);
            let (q, k, v) = (operand(), operand(), operand());
            let got = step.attention(&there(&q), &there(&k), &there(&v));
            let what = format!("{} of [{heads}, {time}, 64]", step.name);
            assert_eq!(got.dims(), [heads, time, 64], "{what}");
            if got.numel() == 0 {
                continue;
            }
            let [q, k, v] = [q, k, v].map(|x| x.to_dtype(DType::F64));
            let p = (q.matmul(&k.transpose(1, 2)) * 0.125).softmax(2);
            let (want, magnitude) = (p.matmul(&v), p.matmul(&v.abs()));
            // Weights are rounded to the operands' dtype. A score has 64 roundings, each of its terms' magnitude at most, which
            // its weight multiplies; a sum of T terms has T.
            let score = (q.abs().matmul(&k.abs().transpose(1, 2)) * 0.125).max().item::<f64>();
            let rounding = if step.dtype == DType::F32 { 0.0 } else { step.dtype.epsilon() / 2.0 };
            let share = rounding + (8.0 + 2.0 * 64.0 * score + 2.0 * time as f64) * DType::F32.epsilon();
            let numbers = got.to_f64_vec().into_iter().zip(want.to_f64_vec()).zip(magnitude.to_f64_vec());
            for (i, ((g, w), m)) in numbers.enumerate() {
                assert!((g - w).abs() <= share * m, "{what}: element {i} is {g}, not {w} ± {:e}", share * m);
            }
        }
    }
}

#[test]
fn steps_say_what_they_cannot_take() {
    let mut random = Random(4);
    for step in MATMUL.iter().filter(|step| step.multiple > 1 && step.runs_on(&cuda())) {
        let [a, b] = [[8, 9], [9, 8]].map(|shape| there(&random.values(&shape, step.dtype)));
        let error = layouts::error(|| step.matmul(&a, &b));
        assert!(error.contains(&format!("multiples of {}", step.multiple)), "{error}");
    }
    let [a, b] = [[1, 1], [1, 524_281]].map(|shape| there(&Tensor::zeros(shape)));
    let error = layouts::error(|| MATMUL[0].matmul(&a, &b));
    assert_eq!(error, "01_naive: needs N ≤ 524280: [1, 1] × [1, 524281]");
    let long = there(&Tensor::zeros([1, 8196]));
    let error = layouts::error(|| SOFTMAX[4].apply(&long));
    assert_eq!(error, "05_vectorised: needs N ≤ 8192, a multiple of 4: [1, 8196]");
    let error = layouts::error(|| ATTENTION[1].attention(&long, &long, &long));
    assert!(error.starts_with("02_online: needs queries, keys and values of one shape [H, T, 64]"), "{error}");
    let here = Tensor::zeros([1, 8]);
    let error = layouts::error(|| LAYER_NORM[0].apply(&here));
    assert!(error.starts_with("01_naive: needs its operands on one card, not on "), "{error}");
}
