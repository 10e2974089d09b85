//! Convolution, pooling and interpolation on a device without kernels for them.

mod plain;
mod support;

use ferrograd_tensor::ops::conv::{Conv2dPlan, weight_grad};
use ferrograd_tensor::ops::pool::{apply_adjoint, avg_pool2d_map, plane_gather, plane_scatter};
use ferrograd_tensor::{Conv2dOptions, ConvTranspose2dOptions, Interpolation, Pool2dOptions, Tensor};
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

#[test]
fn planes() {
    let x = values(&[2, 3, 5, 6], 1);
    let o = Pool2dOptions { kernel: [3, 2], stride: Some([2, 1]), padding: [1, 1], ..Pool2dOptions::default() };
    same(&[&x], |t| t[0].max_pool2d(&o));
    same(&[&x], |t| t[0].max_pool2d_with_index(&o).1);
    same(&[&x], |t| t[0].avg_pool2d(&o));
    same(&[&x], |t| t[0].adaptive_avg_pool2d([2, 4]));
    same(&[&x], |t| t[0].adaptive_max_pool2d([2, 4]));
    same(&[&x], |t| t[0].interpolate(&[7, 3], Interpolation::Bilinear { align_corners: false }));
    let (y, index) = x.max_pool2d_with_index(&o);
    same(&[&y], |t| apply_adjoint(&avg_pool2d_map("avg_pool2d", &x, &o), &t[0]));
    same(&[&x, &index], |t| plane_gather(&t[0], &t[1]));
    same(&[&y, &index], |t| plane_scatter(&t[0], &t[1], 5, 6));
}
