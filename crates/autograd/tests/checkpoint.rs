//! Recomputing activations changes memory, not numbers.

use ferrograd_autograd::*;
use ferrograd_tensor::random::{rng_state, with_seed};
use ferrograd_tensor::{DType, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn mlp(x: &Var, w: &[Var]) -> Var {
    w.iter().fold(x.clone(), |h, w| h.matmul(w).tanh().dropout(0.25))
}

#[test]
fn gradients_of_arguments_and_captured_parameters_are_the_same() {
    let run = |checkpointed: bool| {
        with_seed(3, || {
            let x = Var::leaf(Tensor::randn([4, 5]));
            let w: Vec<Var> = (0..3).map(|_| Var::leaf(Tensor::randn([5, 5]))).collect();
            // An outside value with history of its own, captured too.
            let outside = x.square().sum_keepdims(0);
            let segment = {
                let (w, outside) = (w.clone(), outside.clone());
                move |x: &[Var]| vec![mlp(&x[0], &w) + &outside, x[0].exp()]
            };
            let y = if checkpointed { checkpoint(segment, &[&x]) } else { segment(std::slice::from_ref(&x)) };
            let grads = (y[0].square().sum() + y[1].sum()).backward();
            let mut all = grads.wrt(&x).to_vec::<f32>();
            w.iter().for_each(|w| all.extend(grads.wrt(w).to_vec::<f32>()));
            all
        })
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn nested_segments_and_second_derivatives() {
    let x = Tensor::new([0.3, -0.7]);
    let f = |x: &[Var]| {
        let inner = |x: &[Var]| vec![x[0].tanh() * &x[0]];
        checkpoint(move |x: &[Var]| vec![checkpoint(inner, &[&x[0]])[0].exp()], &[&x[0]]).remove(0)
    };
    let x = [x];
    gradcheck(f, &x).unwrap();
    gradgradcheck(f, &x).unwrap();
}

#[test]
fn no_history_without_need() {
    let x = Var::constant(Tensor::new([1.0, 2.0]));
    assert!(!checkpoint(|x| vec![x[0].exp()], &[&x])[0].requires_grad());
    let w = Var::leaf(Tensor::new([1.0, 2.0]));
    assert!(!no_grad(|| checkpoint(|x| vec![x[0].exp()], &[&w]))[0].requires_grad());
}

/// `w` and something made of `w` are both captured: each path counts once, however often backward runs.
#[test]
fn a_captured_value_and_what_it_was_made_of() {
    let f = |x: &[Var]| {
        let h = x[1].exp();
        let segment = {
            let (w, h) = (x[1].clone(), h.clone());
            move |x: &[Var]| vec![&x[0] * &h * &w]
        };
        checkpoint(segment, &[&x[0]]).remove(0) + h
    };
    let inputs = [Tensor::new([0.3, -0.7]), Tensor::new([0.5, 0.2])];
    gradcheck(f, &inputs).unwrap();
    gradgradcheck(f, &inputs).unwrap();
}

#[test]
fn a_captured_value_returned_as_it_is() {
    let (x, w) = (Var::leaf(Tensor::scalar(1.0)), Var::leaf(Tensor::scalar(2.0)));
    let y = checkpoint(
        {
            let w = w.clone();
            move |x| vec![x[0].exp(), w.reshape(&[] as &[usize])]
        },
        &[&x],
    );
    let grads = (y[1].square() + &y[0]).backward();
    assert_eq!(grads.wrt(&w).item::<f64>(), 4.0);
    assert_eq!(grads.wrt(&x).item::<f64>(), 1f64.exp());
}

#[test]
fn an_argument_that_the_wanted_output_does_not_use() {
    let (a, b) = (Var::leaf(Tensor::scalar(3.0)), Var::leaf(Tensor::scalar(5.0)));
    let y = checkpoint(|x| vec![x[0].powi(3), x[1].square()], &[&a, &b]);
    let first = grad_with(&[&y[0]], &[&a], GradOptions::create_graph());
    assert_eq!(grad(&first[0], &[&a])[0].item::<f64>(), 18.0);
}

#[test]
fn hooks_see_the_whole_gradient_once() {
    let w = Var::leaf(Tensor::scalar(2.0));
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    w.register_hook(move |g| {
        assert_eq!(g.item::<f64>(), 3.0 + 1.0);
        count.fetch_add(1, Ordering::Relaxed);
    });
    let x = Var::leaf(Tensor::scalar(3.0));
    let y = checkpoint(
        {
            let w = w.clone();
            move |x| vec![&x[0] * &w]
        },
        &[&x],
    );
    (&y[0] + &w).backward();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

/// The generator stands afterwards where it would without the checkpoint.
#[test]
fn the_generator_goes_on() {
    let draws = |checkpointed: bool| {
        with_seed(5, || {
            let x = Var::leaf(Tensor::ones(8));
            let segment = |x: &[Var]| vec![x[0].dropout(0.5).dropout(0.5)];
            if checkpointed {
                checkpoint(segment, &[&x])
            } else {
                segment(std::slice::from_ref(&x))
            };
            rng_state()
        })
    };
    assert_eq!(draws(true), draws(false));
}

#[test]
fn backward_under_autocast_is_backward() {
    let run = |inside: bool| {
        with_seed(9, || {
            let x = Var::leaf(Tensor::randn([2, 3, 6, 6]));
            let w = Var::leaf(Tensor::randn([4, 3, 3, 3]));
            let b = Var::leaf(Tensor::randn(4));
            let loss = || x.conv2d(&w, Some(&b), &Conv2dOptions::default()).sum();
            let island = || autocast(DType::F32, || x.matmul(&x)).square().sum();
            let grads = match inside {
                true => autocast(DType::BF16, || (loss() + island()).backward()),
                false => autocast(DType::BF16, || loss() + island()).backward(),
            };
            [&x, &w, &b].map(|v| grads.wrt(v).to_vec::<f32>())
        })
    };
    assert_eq!(run(true), run(false));
}
