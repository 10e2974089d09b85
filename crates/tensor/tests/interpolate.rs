//! Interpolation: PyTorch's values, adjoints, any strides and dtypes, messages.

#[path = "../../../golden/reader.rs"]
mod golden;
mod support;

use ferrograd_tensor::ops::interpolate::interpolate_map;
use ferrograd_tensor::ops::pool::apply_adjoint;
use ferrograd_tensor::{DType, Interpolation, Tensor};
use golden::Golden;
use proptest::prelude::*;
use support::*;

#[test]
fn pytorch() {
    let file = Golden::open("ops");
    let mut seen = 0;
    for case in file.cases().iter().filter(|c| c.starts_with("interpolate")) {
        let (config, expected) = (file.config(case), file.expect(case, "output.out"));
        let mode = match config["mode"].as_str() {
            Some("nearest") => Interpolation::Nearest,
            _ => Interpolation::Bilinear { align_corners: config["align_corners"].as_bool().unwrap() },
        };
        // A scale factor says the same as the size it leads to: here it is whole.
        let y = file.expect(case, "input.input").interpolate(&expected.dims()[2..], mode);
        assert_close(&y, &expected, 1e-14);
        seen += 1;
    }
    assert_eq!(seen, 9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_strides_and_dtypes(
        n in 0usize..3, h in 1usize..6, w in 1usize..6, ho in 1usize..9, wo in 1usize..9, mode in 0usize..3, way in 0usize..4,
    ) {
        let mode = match mode {
            0 => Interpolation::Nearest,
            m => Interpolation::Bilinear { align_corners: m == 1 },
        };
        let x = values(&[n, 2, h, w], 1);
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            let exact = x.to_dtype(dtype).to_dtype(DType::F64).interpolate(&[ho, wo], mode);
            let y = restrided(&x.to_dtype(dtype), way).interpolate(&[ho, wo], mode);
            prop_assert_eq!(y.dtype(), dtype);
            assert_close(&y, &exact, if mode == Interpolation::Nearest { 0.0 } else { 8.0 * eps(dtype) });
        }
        let dy = values(&[n, 2, ho, wo], 2);
        let dx = apply_adjoint(&interpolate_map(&x, &[ho, wo], mode), &restrided(&dy, way));
        prop_assert!((inner(&dx, &x) - inner(&x.interpolate(&[ho, wo], mode), &dy)).abs() < 1e-12);
    }
}

#[test]
fn nearest_is_exact() {
    // ⌊i·n/O⌋ in integers, at every size: the whole multiples stay whole.
    for n in 1..40 {
        let x = Tensor::arange(0.0f64, n as f64, 1.0).reshape([1, 1, n]);
        for out in 1..60 {
            let expected: Vec<f64> = (0..out).map(|i| (i * n / out) as f64).collect();
            assert_eq!(x.interpolate(&[out], Interpolation::Nearest).to_vec::<f64>(), expected);
        }
    }
}

#[test]
fn messages() {
    let (x, bilinear) = (Tensor::zeros([1, 2, 4, 5]), Interpolation::Bilinear { align_corners: false });
    assert_eq!(
        message(|| x.interpolate(&[3], bilinear)),
        "interpolate: size [3] for input [1, 2, 4, 5]: one extent for each of the last 2 dimensions"
    );
    assert!(message(|| x.select(0, 0).interpolate(&[3], bilinear)).contains("needs [N, C, H, W], got [2, 4, 5]"));
    assert!(message(|| x.select(0, 0).select(0, 0).interpolate(&[3], Interpolation::Nearest)).contains("or [N, C, L]"));
    assert!(message(|| x.interpolate(&[0, 3], bilinear)).contains("no extent of a plane may be 0"));
    assert!(message(|| x.to_dtype(DType::I64).interpolate(&[3, 3], bilinear)).contains("needs floats, got i64"));
}
