//! Convolutions: PyTorch's values, the composed form, any strides and dtypes, messages.

#[path = "../../../golden/reader.rs"]
mod golden;
mod support;

use ferrograd_tensor::ops::conv::{Conv2dPlan, composed, forward, input_grad, weight_grad};
use ferrograd_tensor::{Conv1dOptions, Conv2dOptions, ConvTranspose2dOptions, DType, Tensor};
use golden::Golden;
use proptest::prelude::*;
use support::*;

#[test]
fn pytorch() {
    let file = Golden::open("ops");
    let mut seen = 0;
    for case in file.cases().iter().filter(|c| c.starts_with("conv")) {
        let config = file.config(case);
        let (x, w) = (file.expect(case, "input.input"), file.expect(case, "input.weight"));
        let b = file.get(case, "input.bias");
        let [stride, padding, dilation] =
            [("stride", 1), ("padding", 0), ("dilation", 1)].map(|(k, d)| pair(&config, k, d));
        let (output_padding, [groups, _]) = (pair(&config, "output_padding", 0), pair(&config, "groups", 1));
        let y = if case.starts_with("conv1d") {
            let [stride, padding, dilation] = [stride[0], padding[0], dilation[0]];
            x.conv1d(&w, b.as_ref(), &Conv1dOptions { stride, padding, dilation, groups })
        } else if case.starts_with("conv2d") {
            x.conv2d(&w, b.as_ref(), &Conv2dOptions { stride, padding, dilation, groups })
        } else {
            let options = ConvTranspose2dOptions { stride, padding, output_padding, dilation, groups };
            x.conv_transpose2d(&w, b.as_ref(), &options)
        };
        assert_close(&y, &file.expect(case, "output.out"), 1e-13);
        seen += 1;
    }
    assert_eq!(seen, 21);
}

/// A convolution whose kernel fits: groups, channels per group, output channels per group, images, and per axis
/// `(extent beyond the kernel, kernel, stride, padding, dilation)`.
fn plans() -> impl Strategy<Value = Conv2dPlan> {
    let axis = || (0usize..4, 1usize..4, 1usize..4, 0usize..3, 1usize..3);
    (1usize..4, 0usize..3, 0usize..3, 0usize..3, axis(), axis()).prop_map(|(g, cg, og, n, a, b)| {
        let extent = |(extra, k, _, p, d): (usize, usize, usize, usize, usize)| {
            (extra + d * (k - 1) + 1).saturating_sub(2 * p).max(1)
        };
        let (x, w) = ([n, g * cg, extent(a), extent(b)], [g * og, cg, a.1, b.1]);
        let options = Conv2dOptions { stride: [a.2, b.2], padding: [a.3, b.3], dilation: [a.4, b.4], groups: g };
        Conv2dPlan::conv2d(&x.into(), &w.into(), &options)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn kernels_match_the_composed_form(plan in plans(), way in 0usize..4) {
        let x = values(&plan.input_shape(), 1);
        let w = values(&plan.weight_shape(), 2);
        let dy = values(&plan.output_shape(), 3);
        let terms = (plan.geometry.c * plan.geometry.kh * plan.geometry.kw) as f64;
        let pixels = (plan.geometry.n * plan.out.0 * plan.out.1) as f64;
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            // Both are compared on the same rounded operands; a sum of k products of numbers below 1 errs by k·k·ε.
            let cast = |t: &Tensor| restrided(&t.to_dtype(dtype), way);
            let exact = |t: &Tensor| t.to_dtype(dtype).to_dtype(DType::F64);
            let tol = |k: f64| 4.0 * (if dtype.is_half() { eps(dtype) } else { eps(dtype) * k }) * k.max(1.0);
            let (y, dx, dw) = (
                forward(&plan, &cast(&x), &cast(&w), None),
                input_grad(&plan, &cast(&dy), &cast(&w)),
                weight_grad(&plan, &cast(&x), &cast(&dy)),
            );
            prop_assert_eq!((y.dtype(), dx.dtype(), dw.dtype()), (dtype, dtype, dtype));
            assert_close(&y, &composed::forward(&plan, &exact(&x), &exact(&w)), tol(terms));
            assert_close(&dx, &composed::input_grad(&plan, &exact(&dy), &exact(&w)), tol(terms * 9.0));
            assert_close(&dw, &composed::weight_grad(&plan, &exact(&x), &exact(&dy)), tol(pixels));
        }
        // The trilinear form ⟨conv(x, w), dy⟩ = ⟨x, dx⟩ = ⟨w, dw⟩.
        let form = inner(&forward(&plan, &x, &w, None), &dy);
        for other in [inner(&input_grad(&plan, &dy, &w), &x), inner(&weight_grad(&plan, &x, &dy), &w)] {
            prop_assert!((form - other).abs() < 1e-11 * (1.0 + form.abs()));
        }
    }

    #[test]
    fn a_transposed_convolution_may_leave_windows_unused(
        n in 1usize..4, k in 1usize..4, s in 1usize..3, p in 0usize..2, d in 1usize..4, extra in 0usize..3, way in 0usize..4,
    ) {
        prop_assume!(extra < s.max(d) && (n - 1) * s + d * (k - 1) + extra + 1 > 2 * p);
        let (x, w) = (values(&[2, 2, n, 3], 1), values(&[2, 3, k, 2], 2));
        let options = ConvTranspose2dOptions {
            stride: [s, 1], padding: [p, 0], output_padding: [extra, 0], dilation: [d, 1], groups: 1,
        };
        let y = restrided(&x, way).conv_transpose2d(&restrided(&w, way), None, &options);
        let plan = Conv2dPlan::conv_transpose2d(x.shape(), w.shape(), &options);
        prop_assert_eq!(y.shape(), &plan.input_shape());
        assert_close(&y, &composed::input_grad(&plan, &x, &w), 1e-13);
        // By the definition, element for element.
        let mut expected = vec![0.0; y.numel()];
        let (xv, wv, o) = (x.to_vec::<f64>(), w.to_vec::<f64>(), y.dims().to_vec());
        for (b, c, i, j) in (0..2).flat_map(|b| (0..2).flat_map(move |c| (0..n).flat_map(move |i| (0..3).map(move |j| (b, c, i, j))))) {
            for (oc, u, v) in (0..3).flat_map(|oc| (0..k).flat_map(move |u| (0..2).map(move |v| (oc, u, v)))) {
                let (row, col) = ((i * s + u * d).wrapping_sub(p), j + v);
                if row < o[2] && col < o[3] {
                    expected[((b * 3 + oc) * o[2] + row) * o[3] + col] +=
                        xv[((b * 2 + c) * n + i) * 3 + j] * wv[((c * 3 + oc) * k + u) * 2 + v];
                }
            }
        }
        assert_close(&y, &Tensor::from_vec(expected, y.shape()), 1e-13);
    }
}

#[test]
fn bias_and_promotion() {
    let (x, w) = (values(&[1, 2, 3, 3], 1), values(&[2, 2, 2, 2], 2).to_dtype(DType::F32));
    let bias = Tensor::new([10.0f32, 20.0]);
    let plain = x.conv2d(&w, None, &Conv2dOptions::default());
    let y = x.conv2d(&w, Some(&bias), &Conv2dOptions::default());
    assert_eq!(y.dtype(), DType::F64);
    assert_close(
        &(&y - &plain),
        &bias.to_dtype(DType::F64).reshape([2, 1, 1]).expand([1, 2, 2, 2]).contiguous(),
        1e-12,
    );
    let half = x.to_dtype(DType::BF16).conv2d(&w.to_dtype(DType::BF16), Some(&bias), &Conv2dOptions::default());
    assert_eq!(half.dtype(), DType::F32); // promoted by the bias
}

#[test]
fn messages() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape);
    let conv = |x: &[usize], w: &[usize], o: Conv2dOptions| message(|| zeros(x).conv2d(&zeros(w), None, &o));
    let plain = Conv2dOptions::default();
    assert_eq!(
        conv(&[1, 3, 8, 8], &[4, 2, 3, 3], plain),
        "conv2d: input [1, 3, 8, 8] with weight [4, 2, 3, 3] and 1 groups: the input has 3 channels, the weight expects 2 \
         (2 × 1)"
    );
    assert_eq!(
        conv(&[1, 4, 8, 8], &[3, 2, 3, 3], Conv2dOptions { groups: 2, ..plain }),
        "conv2d: weight [3, 2, 3, 3] has 3 output channels, which 2 groups do not divide"
    );
    assert_eq!(
        conv(&[1, 2, 2, 8], &[4, 2, 3, 3], Conv2dOptions { dilation: [2, 1], padding: [1, 0], ..plain }),
        "conv2d: the kernel does not fit: input [1, 2, 2, 8] with padding [1, 0] has 4 in dimension 2, weight [4, 2, 3, 3] \
         with dilation [2, 1] spans 5"
    );
    assert!(conv(&[2, 8, 8], &[4, 2, 3, 3], plain).contains("the input must be [N, C, H, W]"));
    assert!(conv(&[1, 2, 8, 8], &[4, 2, 0, 3], plain).contains("empty kernel"));
    assert!(conv(&[1, 2, 8, 8], &[4, 2, 3, 3], Conv2dOptions { stride: [0, 1], ..plain }).contains("at least 1"));
    assert!(conv(&[1, 2, 8, 8], &[4, 2, 3, 3], Conv2dOptions { groups: 0, ..plain }).contains("at least 1"));
    let bias = message(|| zeros(&[1, 2, 8, 8]).conv2d(&zeros(&[4, 2, 3, 3]), Some(&zeros(&[2])), &plain));
    assert_eq!(bias, "conv2d: bias [2] for 4 output channels: it must be [4]");
    let integers = Tensor::arange(0i64, 9, 1).reshape([1, 1, 3, 3]);
    assert_eq!(message(|| integers.conv2d(&integers, None, &plain)), "conv2d: needs floats, got i64 and i64");
    let line = message(|| zeros(&[1, 3, 8]).conv1d(&zeros(&[4, 2, 3]), None, &Conv1dOptions::default()));
    assert!(line.starts_with("conv1d: input [1, 3, 8] with weight [4, 2, 3]"), "{line}");
    let bias = message(|| zeros(&[1, 2, 8]).conv1d(&zeros(&[4, 2, 3]), Some(&zeros(&[5])), &Conv1dOptions::default()));
    assert_eq!(bias, "conv1d: bias [5] for 4 output channels: it must be [4]");
    let transpose = |o| message(|| zeros(&[1, 2, 3, 3]).conv_transpose2d(&zeros(&[2, 1, 2, 2]), None, &o));
    let plain = ConvTranspose2dOptions::default();
    assert!(transpose(ConvTranspose2dOptions { output_padding: [1, 0], ..plain }).contains("below the stride"));
    assert!(transpose(ConvTranspose2dOptions { padding: [2, 0], ..plain }).contains("leaves nothing"));
    assert!(transpose(ConvTranspose2dOptions { groups: 3, ..plain }).contains("a multiple of the groups"));
}
