//! The engine: right gradients, any order, any depth.

use ferrograd_autograd::*;
use ferrograd_tensor::{Error, Tensor, catch};

#[test]
fn cube() {
    let x = Var::leaf(Tensor::scalar(3.0));
    let y = x.powi(3);
    let dy = grad_with(&[&y], &[&x], GradOptions::create_graph());
    let d2y = grad_with(&[&dy[0]], &[&x], GradOptions::create_graph());
    let d3y = grad(&d2y[0], &[&x]);
    assert_eq!((dy[0].item::<f64>(), d2y[0].item::<f64>(), d3y[0].item::<f64>()), (27.0, 18.0, 6.0));
}

#[test]
fn a_million_operations_on_a_small_stack() {
    let run = || {
        let x = Var::leaf(Tensor::scalar(1.0f32));
        let mut y = x.clone();
        for _ in 0..1_000_000 {
            y = y + 1.0;
        }
        assert_eq!(y.backward().wrt(&x).item::<f32>(), 1.0);
        drop(y);
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn matmul_and_broadcast() {
    let x = Var::leaf(Tensor::new([[1.0, 2.0], [3.0, 4.0]]));
    let w = Var::leaf(Tensor::new([[0.5, -1.0], [2.0, 0.0]]));
    let b = Var::leaf(Tensor::new([0.1, 0.2]));
    let loss = (x.matmul(&w) + &b).tanh().sum();
    let grads = loss.backward();
    assert_eq!(*grads.wrt(&b).shape(), [2]);
    let eps = 1e-6;
    let f = |w: &Tensor| (x.tensor().matmul(w) + b.tensor()).tanh().sum().item::<f64>();
    let mut bumped = w.tensor().to_vec::<f64>();
    bumped[1] += eps;
    let numeric = (f(&Tensor::from_slice(&bumped, [2, 2])) - f(w.tensor())) / eps;
    assert!((numeric - grads.wrt(&w).to_vec::<f64>()[1]).abs() < 1e-5);
}

#[test]
fn a_second_backward_is_an_error() {
    let x = Var::leaf(Tensor::scalar(2.0));
    let y = x.exp();
    y.backward();
    assert!(matches!(catch(|| y.backward()), Err(Error::Derivative { op: "exp", .. })));
}
