//! Pooling: PyTorch's values, adjoints, any strides and dtypes, messages.

#[path = "../../../golden/reader.rs"]
mod golden;
mod support;

use ferrograd_tensor::ops::pool::{apply_adjoint, apply_map, avg_pool2d_map, plane_gather, plane_scatter};
use ferrograd_tensor::{DType, Pool1dOptions, Pool2dOptions, Tensor};
use golden::Golden;
use proptest::prelude::*;
use serde_json::Value;
use support::*;

fn options(config: &Value) -> Pool2dOptions {
    Pool2dOptions {
        kernel: pair(config, "kernel_size", 0),
        stride: (!config["stride"].is_null()).then(|| pair(config, "stride", 0)),
        padding: pair(config, "padding", 0),
        dilation: pair(config, "dilation", 1),
        ceil_mode: config["ceil_mode"].as_bool().unwrap_or(false),
        count_include_pad: config["count_include_pad"].as_bool().unwrap_or(true),
    }
}

fn one_dimensional(o: Pool2dOptions) -> Pool1dOptions {
    Pool1dOptions {
        kernel: o.kernel[0],
        stride: o.stride.map(|s| s[0]),
        padding: o.padding[0],
        dilation: o.dilation[0],
        ceil_mode: o.ceil_mode,
        count_include_pad: o.count_include_pad,
    }
}

#[test]
fn pytorch() {
    let file = Golden::open("ops");
    let mut seen = 0;
    for case in file.cases().iter().filter(|c| c.contains("_pool")) {
        let (config, x) = (file.config(case), file.expect(case, "input.input"));
        let size = pair(&config, "output_size", 0);
        let name = case.split_once("d_").map_or(case.clone(), |(name, _)| format!("{name}d"));
        let y = match name.as_str() {
            "max_pool1d" => x.max_pool1d(&one_dimensional(options(&config))),
            "max_pool2d" => x.max_pool2d(&options(&config)),
            "avg_pool1d" => x.avg_pool1d(&one_dimensional(options(&config))),
            "avg_pool2d" => x.avg_pool2d(&options(&config)),
            "adaptive_avg_pool1d" => x.adaptive_avg_pool1d(size[0]),
            "adaptive_avg_pool2d" => x.adaptive_avg_pool2d(size),
            "adaptive_max_pool1d" => x.adaptive_max_pool1d(size[0]),
            "adaptive_max_pool2d" => x.adaptive_max_pool2d(size),
            other => panic!("{other}"),
        };
        assert_close(&y, &file.expect(case, "output.out"), 1e-14);
        seen += 1;
    }
    assert_eq!(seen, 18);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_strides_and_dtypes(
        n in 0usize..3, c in 1usize..3, h in 2usize..7, w in 2usize..7, kernel in (1usize..4, 1usize..4),
        stride in (1usize..3, 1usize..3), ceil_mode: bool, count_include_pad: bool, way in 0usize..4,
    ) {
        let kernel = [kernel.0.min(h), kernel.1.min(w)];
        let o = Pool2dOptions {
            kernel, stride: Some(stride.into()), padding: [kernel[0] / 2, 0], dilation: [1, 1], ceil_mode, count_include_pad,
        };
        let x = values(&[n, c, h, w], 1);
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            let exact = x.to_dtype(dtype).to_dtype(DType::F64);
            let x = restrided(&x.to_dtype(dtype), way);
            // A maximum is exact, a mean is rounded once per sum and once at the end.
            let (y, index) = x.max_pool2d_with_index(&o);
            prop_assert_eq!((y.dtype(), index.dtype()), (dtype, DType::I64));
            assert_close(&y, &exact.max_pool2d(&o), 0.0);
            assert_close(&plane_gather(&x, &index), &y, 0.0);
            assert_close(&x.avg_pool2d(&o), &exact.avg_pool2d(&o), 10.0 * eps(dtype));
            assert_close(&x.adaptive_avg_pool2d(kernel), &exact.adaptive_avg_pool2d(kernel), 50.0 * eps(dtype));
            assert_close(&x.adaptive_max_pool2d(kernel), &exact.adaptive_max_pool2d(kernel), 0.0);
        }
        let (y, index) = x.max_pool2d_with_index(&o);
        let dy = values(y.dims(), 2);
        let scattered = plane_scatter(&restrided(&dy, way), &restrided(&index, way), h, w);
        prop_assert!((inner(&scattered, &x) - inner(&y, &dy)).abs() < 1e-12);
        let map = avg_pool2d_map("avg_pool2d", &x, &o);
        let adjoint = apply_adjoint(&map, &restrided(&dy, way));
        prop_assert!((inner(&adjoint, &x) - inner(&apply_map(&map, &x), &dy)).abs() < 1e-12);
    }
}

#[test]
fn a_window_of_padding_only_has_no_place() {
    // Taps at −2 and 1 of an image of one row.
    let o = Pool2dOptions { kernel: [2, 1], dilation: [3, 1], padding: [2, 0], ..Pool2dOptions::default() };
    let (y, index) = Tensor::ones([1, 1, 1, 1]).max_pool2d_with_index(&o);
    assert_eq!((y.to_vec::<f32>(), index.to_vec::<i64>()), (vec![f32::NEG_INFINITY], vec![-1]));
    assert_eq!(plane_scatter(&Tensor::ones([1, 1, 1, 1]), &index, 1, 1).to_vec::<f32>(), [0.0]);
    assert_eq!(plane_gather(&Tensor::ones([1, 1, 1, 1]), &index).to_vec::<f32>(), [0.0]);
}

#[test]
fn places_are_checked() {
    let x = Tensor::ones([2, 3, 4]);
    let index = Tensor::from_vec(vec![0i64; 4], [2, 1, 2]);
    assert_eq!(plane_gather(&x, &index).to_vec::<f32>(), [1.0; 4]);
    assert_eq!(
        message(|| plane_gather(&x, &index.to_dtype(DType::I32))),
        "plane_gather: the index must be i64, got i32"
    );
    assert_eq!(
        message(|| plane_gather(&x, &index.select(0, 0))),
        "plane_gather: x and the index need at least 2 dimensions, equal before the last two: [2, 3, 4] and [1, 2]"
    );
    assert!(message(|| plane_gather(&x, &index.narrow(0, 0, 1))).contains("[2, 3, 4] and [1, 1, 2]"));
    assert!(message(|| plane_gather(&Tensor::ones([4]), &index.flatten())).contains("[4] and [4]"));
    assert_eq!(
        message(|| plane_gather(&x, &index.add_scalar(12.0))),
        "plane_gather: index 12 lies outside of -1..12 (3 × 4)"
    );
    assert_eq!(
        message(|| plane_scatter(&Tensor::ones([2, 1, 2]), &index.add_scalar(-2.0), 3, 4)),
        "plane_scatter: index -2 lies outside of -1..12 (3 × 4)"
    );
    assert_eq!(
        message(|| plane_scatter(&Tensor::ones([2, 2, 1]), &index, 3, 4)),
        "plane_scatter: dy and the index need one shape of at least 2 dimensions: [2, 2, 1] and [2, 1, 2]"
    );
    assert!(message(|| plane_scatter(&index, &index, 3, 4)).contains("needs floats, got i64"));
    // Nothing to gather from, and nothing to scatter to.
    let nowhere = index.add_scalar(-1.0);
    assert_eq!(plane_gather(&Tensor::ones([2, 0, 4]), &nowhere).to_vec::<f32>(), [0.0; 4]);
    assert_eq!(*plane_scatter(&Tensor::ones([2, 1, 2]), &nowhere, 0, 4).shape(), [2, 0, 4]);
}

#[test]
fn messages() {
    let x = Tensor::zeros([1, 2, 4, 5]);
    let o = Pool2dOptions { kernel: [3, 3], ..Pool2dOptions::default() };
    assert_eq!(
        message(|| Tensor::zeros([1, 2, 2, 5]).max_pool2d(&o)),
        "max_pool2d: the window does not fit: input [1, 2, 2, 5] with padding [0, 0], kernel [3, 3] with dilation [1, 1]"
    );
    assert!(message(|| x.avg_pool2d(&Pool2dOptions { padding: [2, 0], ..o })).contains("at most half of the window"));
    assert!(message(|| x.avg_pool2d(&Pool2dOptions { dilation: [2, 1], ..o })).contains("no dilation"));
    assert!(message(|| x.max_pool2d(&Pool2dOptions { kernel: [0, 1], ..o })).contains("at least 1"));
    assert!(message(|| x.select(0, 0).max_pool2d(&o)).contains("[N, C, H, W]"));
    assert_eq!(
        message(|| x.max_pool1d(&Pool1dOptions::default())),
        "max_pool1d: the input must be [N, C, L], got [1, 2, 4, 5]"
    );
    assert!(message(|| x.to_dtype(DType::I64).avg_pool2d(&o)).contains("needs floats, got i64"));
    assert!(message(|| Tensor::zeros([1, 2, 0, 5]).adaptive_avg_pool2d([1, 1])).contains("planes are empty"));
}
