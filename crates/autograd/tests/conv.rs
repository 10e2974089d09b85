//! Derivatives of convolutions: PyTorch's values, differences to second order, autocast.

#[path = "../../../golden/reader.rs"]
mod golden;
mod numeric;

use ferrograd_autograd::*;
use ferrograd_tensor::{DType, Tensor, catch};
use golden::Golden;
use numeric::*;

#[test]
fn pytorch() {
    let file = Golden::open("ops");
    let mut seen = 0;
    for case in file.cases().iter().filter(|c| c.starts_with("conv")) {
        let config = file.config(case);
        let [x, w] = ["input.input", "input.weight"].map(|k| Var::leaf(file.expect(case, k)));
        let b = file.get(case, "input.bias").map(Var::leaf);
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
        assert_close(y.tensor(), &file.expect(case, "output.out"), 1e-13);
        let grads = y.backward_from(&file.expect(case, "grad_output"));
        assert_close(grads.wrt(&x), &file.expect(case, "grad_input.input"), 1e-13);
        assert_close(grads.wrt(&w), &file.expect(case, "grad_input.weight"), 1e-13);
        if let Some(b) = b {
            assert_close(grads.wrt(&b), &file.expect(case, "grad_input.bias"), 1e-13);
        }
        seen += 1;
    }
    assert_eq!(seen, 21);
}

#[test]
fn second_order() {
    let options = Conv2dOptions { stride: [2, 1], padding: [1, 0], dilation: [1, 2], groups: 2 };
    let at = [values(&[1, 2, 3, 4], 1), values(&[2, 1, 2, 2], 2), values(&[2], 3)];
    check(|v| v[0].conv2d(&v[1], Some(&v[2]), &options), &at);
    let options = Conv1dOptions { stride: 2, padding: 1, ..Conv1dOptions::default() };
    let at = [values(&[2, 2, 4], 1), values(&[2, 2, 3], 2), values(&[2], 3)];
    check(|v| v[0].conv1d(&v[1], Some(&v[2]), &options), &at);
    // The last case leaves a window of the adjoint convolution unused: output_padding is not below the stride.
    for (stride, output_padding, dilation) in [([2, 1], [1, 0], [1, 1]), ([1, 2], [1, 1], [2, 1])] {
        let options = ConvTranspose2dOptions { stride, padding: [1, 0], output_padding, dilation, groups: 2 };
        let at = [values(&[1, 2, 2, 3], 1), values(&[2, 1, 2, 2], 2), values(&[2], 3)];
        check(|v| v[0].conv_transpose2d(&v[1], Some(&v[2]), &options), &at);
    }
}

#[test]
fn autocast_lowers_and_gradients_come_back_in_f32() {
    let [x, w, b] = [&[1, 2, 4, 4][..], &[3, 2, 3, 3], &[3]].map(|s| Var::leaf(values(s, 1).to_dtype(DType::F32)));
    let full = x.conv2d(&w, Some(&b), &Conv2dOptions::default());
    let y = autocast(DType::BF16, || x.conv2d(&w, Some(&b), &Conv2dOptions::default()));
    assert_eq!(y.dtype(), DType::BF16);
    // 18 products of bf16 operands (each off by 2⁻⁹ of values up to 1) and a rounding of the sum.
    assert_close(y.tensor(), full.tensor(), 19.0 * 2f64.powi(-8));
    let grads = y.to_dtype(DType::F32).sum().backward();
    for v in [&x, &w, &b] {
        assert_eq!((grads.wrt(v).dtype(), grads.wrt(v).shape()), (DType::F32, v.shape()));
    }
}

#[test]
fn an_image_that_needs_no_gradient_and_an_empty_batch() {
    let w = Var::leaf(values(&[2, 1, 2, 2], 1));
    let y = Var::constant(values(&[1, 1, 3, 3], 2)).conv2d(&w, None, &Conv2dOptions::default());
    assert_eq!(*y.sum().backward().wrt(&w).shape(), [2, 1, 2, 2]);
    let x = Var::leaf(Tensor::zeros([0, 1, 3, 3]).to_dtype(DType::F64));
    let y = x.conv2d(&w, None, &Conv2dOptions::default());
    assert_eq!(*y.shape(), [0, 2, 2, 2]);
    let grads = y.sum().backward();
    assert_eq!(grads.wrt(&w).to_vec::<f64>(), [0.0; 8]);
    assert_eq!(*grads.wrt(&x).shape(), [0, 1, 3, 3]);
}

#[test]
fn messages() {
    let (x, w) = (Var::leaf(values(&[1, 3, 4, 4], 1)), Var::leaf(values(&[2, 2, 3, 3], 2)));
    let error = catch(|| x.conv2d(&w, None, &Conv2dOptions::default())).unwrap_err().to_string();
    assert!(error.starts_with("conv2d: input [1, 3, 4, 4] with weight [2, 2, 3, 3]"), "{error}");
    let b = Var::leaf(values(&[5], 3));
    let w = Var::leaf(values(&[2, 3, 3, 3], 2));
    let error = catch(|| x.conv2d(&w, Some(&b), &Conv2dOptions::default())).unwrap_err().to_string();
    assert_eq!(error, "conv2d: bias [5] for 2 output channels: it must be [2]");
}
