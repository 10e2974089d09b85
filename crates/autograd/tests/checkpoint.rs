//! Recomputing activations changes memory, not numbers.

use ferrograd_autograd::*;
use ferrograd_tensor::Tensor;
use ferrograd_tensor::random::with_seed;

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
