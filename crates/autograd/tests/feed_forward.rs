//! Derivatives of the feed-forward part of a Transformer.

mod differences;

use differences::{derivatives, values};
use ferrograd_autograd::{Activation, Var, autocast};
use ferrograd_tensor::{DType, Tensor, catch};

fn composed(x: &Var, [w1, w2]: [&Var; 2], [b1, b2]: [Option<&Var>; 2], activation: Activation) -> Var {
    x.linear(w1, b1).activate(activation).linear(w2, b2)
}

#[test]
fn first_and_second_order() {
    let all = [values(&[2, 3, 4], 1), values(&[5, 4], 2), values(&[2, 5], 3), values(&[5], 4), values(&[2], 5)];
    for f in Activation::ALL {
        derivatives(|v| v[0].feed_forward([&v[1], &v[2]], [Some(&v[3]), Some(&v[4])], f).tanh(), &all);
        derivatives(
            |v| v[0].feed_forward([&v[1], &v[2]], [None, Some(&v[3])], f).tanh(),
            &[&all[..3], &all[4..]].concat(),
        );
        derivatives(|v| v[0].feed_forward([&v[1], &v[2]], [Some(&v[3]), None], f).tanh(), &all[..4]);
    }
    // Weights that lie the other way, and inputs of which nobody asks for the gradient.
    let [x, w1, w2] = [&all[0], &all[1], &all[2]].map(|t| Var::constant(t.clone()));
    let f = Activation::GeluTanh;
    let transposed = |t: &Tensor| t.t().contiguous();
    derivatives(
        |v| x.feed_forward([&v[0].t(), &v[1].t()], [None; 2], f).tanh(),
        &[transposed(&all[1]), transposed(&all[2])],
    );
    derivatives(|v| x.feed_forward([&w1, &v[0]], [None, Some(&v[1])], f).tanh(), &[all[2].clone(), all[4].clone()]);
    derivatives(|v| v[0].feed_forward([&w1, &w2], [None; 2], f).tanh(), &all[..1]);
}

#[test]
fn it_is_two_linear_maps_and_a_function() {
    let [x, w1, w2, b1, b2] =
        [values(&[3, 4], 1), values(&[6, 4], 2), values(&[5, 6], 3), values(&[6], 4), values(&[5], 5)].map(Var::leaf);
    let g = values(&[3, 5], 6);
    for f in Activation::ALL {
        let (weights, biases) = ([&w1, &w2], [Some(&b1), Some(&b2)]);
        let (fused, composed) = (x.feed_forward(weights, biases, f), composed(&x, weights, biases, f));
        assert!(fused.tensor().all_close(composed.tensor(), 1e-14, 1e-15));
        let (fused, composed) = (fused.backward_from(&g), composed.backward_from(&g));
        for v in [&x, &w1, &w2, &b1, &b2] {
            assert!(fused.wrt(v).all_close(composed.wrt(v), 1e-13, 1e-14), "{f:?}");
        }
    }
}

#[test]
fn nothing_at_all() {
    let [x, w1, w2] = [Tensor::zeros([0, 4]), Tensor::ones([3, 4]), Tensor::ones([2, 3])].map(Var::leaf);
    let grads = x.feed_forward([&w1, &w2], [None; 2], Activation::Relu).sum().backward();
    assert_eq!(*grads.wrt(&x).shape(), [0, 4]);
    assert_eq!((grads.wrt(&w1).to_vec::<f32>(), grads.wrt(&w2).to_vec::<f32>()), (vec![0.0; 12], vec![0.0; 6]));
}

#[test]
fn half_types_and_autocast() {
    let [x, w1, w2] =
        [values(&[4, 6], 1), values(&[5, 6], 2), values(&[3, 5], 3)].map(|t| Var::leaf(t.to_dtype(DType::F32)));
    let y = autocast(DType::BF16, || x.feed_forward([&w1, &w2], [None; 2], Activation::Gelu));
    assert_eq!(y.dtype(), DType::BF16);
    let grads = y.sum().backward();
    assert!([&x, &w1, &w2].iter().all(|v| grads.wrt(v).dtype() == DType::F32));
    let wide = x.feed_forward([&w1, &w2], [None; 2], Activation::Gelu);
    assert!(y.tensor().to_dtype(DType::F32).all_close(wide.tensor(), 0.05, 0.05));
}

#[test]
fn mistakes_are_named() {
    let [x, w1, w2] = [Tensor::ones([2, 4]), Tensor::ones([3, 4]), Tensor::ones([2, 4])].map(Var::constant);
    let error = catch(|| x.feed_forward([&w1, &w2], [None; 2], Activation::Relu)).unwrap_err().to_string();
    assert!(error.contains("linear: the last dimension of the input [2, 3]"), "{error}");
}
