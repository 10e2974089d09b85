//! Convolution on a device without kernels for it.

mod plain;
mod support;

use ferrograd_tensor::ops::conv::{Conv2dPlan, weight_grad};
use ferrograd_tensor::{Conv2dOptions, ConvTranspose2dOptions, Tensor};
use plain::device;
use support::*;

/// `f` of the tensors gives the same here and there, and there it stays there.
#[track_caller]
fn same(xs: &[&Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    let here: Vec<Tensor> = xs.iter().map(|&x| x.clone()).collect();
    let there: Vec<Tensor> = xs.iter().map(|x| x.to_device(&device())).collect();
    let y = f(&there);
    assert_eq!(y.device(), device());
    assert_close(&y, &f(&here), 1e-13);
}

#[test]
fn convolutions() {
    let options = Conv2dOptions { stride: [2, 1], padding: [1, 2], dilation: [1, 2], groups: 2 };
    let (x, w, b) = (values(&[2, 4, 5, 6], 1), values(&[6, 2, 3, 2], 2), values(&[6], 3));
    same(&[&x, &w, &b], |t| t[0].conv2d(&t[1], Some(&t[2]), &options));
    let plan = Conv2dPlan::conv2d(x.shape(), w.shape(), &options);
    same(&[&x, &values(&plan.output_shape(), 4)], |t| weight_grad(&plan, &t[0], &t[1]));
    let options = ConvTranspose2dOptions { stride: [2, 1], output_padding: [1, 0], groups: 2, ..Default::default() };
    let w = values(&[4, 3, 3, 2], 2);
    same(&[&x, &w, &b], |t| t[0].conv_transpose2d(&t[1], Some(&t[2]), &options));
}
