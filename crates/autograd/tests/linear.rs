//! Derivatives of the linear map.

mod differences;
#[path = "../../../golden/reader.rs"]
mod golden;

use differences::{derivatives, values};
use ferrograd_autograd::{Var, autocast};
use ferrograd_tensor::{DType, Tensor, catch};
use golden::Golden;

#[test]
fn first_and_second_order() {
    let (w, b) = (values(&[3, 4], 2), values(&[3], 3));
    for shape in [&[4][..], &[2, 4], &[2, 3, 4]] {
        let x = values(shape, 1);
        derivatives(|v| v[0].linear(&v[1], Some(&v[2])).tanh(), &[x.clone(), w.clone(), b.clone()]);
        derivatives(|v| v[0].linear(&v[1], None).tanh(), &[x, w.clone()]);
    }
    let (x, wc) = (values(&[4, 2, 3], 1), Var::constant(w));
    derivatives(|v| v[0].permute([1, 2, 0]).linear(&wc, Some(&v[1])).tanh(), &[x, b]);
}

#[test]
fn it_is_a_product_and_a_sum() {
    let [x, w, b] = [values(&[2, 3, 4], 1), values(&[5, 4], 2), values(&[5], 3)].map(Var::leaf);
    let (fused, composed) = (x.linear(&w, Some(&b)), x.matmul(&w.t()) + &b);
    assert!(fused.tensor().all_close(composed.tensor(), 1e-14, 1e-15));
    let g = values(&[2, 3, 5], 4);
    let (fused, composed) = (fused.backward_from(&g), composed.backward_from(&g));
    for v in [&x, &w, &b] {
        assert!(fused.wrt(v).all_close(composed.wrt(v), 1e-13, 1e-14));
    }
}

#[test]
fn golden_gradients() {
    let file = Golden::open("ops");
    let [x, w, b] = ["input", "weight", "bias"].map(|n| Var::leaf(file.expect("linear", &format!("input.{n}"))));
    let y = x.linear(&w, Some(&b));
    assert!(y.tensor().all_close(&file.expect("linear", "output.out"), 1e-13, 1e-14));
    let grads = y.backward_from(&file.expect("linear", "grad_output"));
    for (name, v) in [("input", &x), ("weight", &w), ("bias", &b)] {
        assert!(grads.wrt(v).all_close(&file.expect("linear", &format!("grad_input.{name}")), 1e-12, 1e-13), "{name}");
    }
}

#[test]
fn nothing_at_all() {
    let [x, w, b] = [Tensor::zeros([0, 4]), Tensor::ones([3, 4]), Tensor::ones([3])].map(Var::leaf);
    let grads = x.linear(&w, Some(&b)).sum().backward();
    assert_eq!(*grads.wrt(&x).shape(), [0, 4]);
    assert_eq!((grads.wrt(&w).to_vec::<f32>(), grads.wrt(&b).to_vec::<f32>()), (vec![0.0; 12], vec![0.0; 3]));
    let (x, w) = (Var::leaf(Tensor::ones([2, 0])), Var::leaf(Tensor::ones([3, 0])));
    assert_eq!(x.linear(&w, Some(&b)).tensor().to_vec::<f32>(), [1.0; 6]);
}

#[test]
fn half_types_and_autocast() {
    let [x, w, b] = [values(&[4, 6], 1), values(&[5, 6], 2), values(&[5], 3)].map(|t| t.to_dtype(DType::F32));
    for dtype in [DType::BF16, DType::F16] {
        let [x, w, b] = [&x, &w, &b].map(|t| Var::leaf(t.clone()));
        let y = autocast(dtype, || x.linear(&w, Some(&b)));
        assert_eq!(y.dtype(), dtype);
        let grads = y.to_dtype(DType::F32).sum().backward();
        let wide = x.linear(&w, Some(&b));
        let want = wide.sum().backward();
        // Inputs and weights in [−1, 1) rounded, six products, the sum and the bias rounded.
        assert!(y.tensor().to_dtype(DType::F32).all_close(wide.tensor(), 0.0, 8.0 * dtype.epsilon()));
        for v in [&x, &w, &b] {
            assert_eq!(grads.wrt(v).dtype(), DType::F32);
            assert!(grads.wrt(v).all_close(want.wrt(v), 0.0, 8.0 * dtype.epsilon()));
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let (x, w) = (Var::leaf(Tensor::zeros([2, 3])), Var::leaf(Tensor::zeros([5, 4])));
    let error = catch(|| x.linear(&w, None)).unwrap_err().to_string();
    let rule =
        "the last dimension of the input [2, 3] is not weight's number of inputs: [5, 4] is [outputs, inputs = 4]";
    assert_eq!(error, format!("linear: {rule}"));
}
