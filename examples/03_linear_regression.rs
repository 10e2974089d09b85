//! 3. Linear regression twice: with the gradient worked out by hand, and with the engine's.
//!
//! The loss is `L = 1/N Σ (xᵢᵀw + b − yᵢ)²`, so `∂L/∂w = 2/N Xᵀr` and `∂L/∂b = 2/N Σ rᵢ` with `r = Xw + b − y`.
//!
//! `cargo run --release --example 03_linear_regression` prints
//!
//! ```text
//! true     w = [ 2.0, -3.0,  0.5], b = 0.7
//! by hand  w = [ 2.0013, -3.0011,  0.4992], b = 0.7003
//! autograd w = [ 2.0013, -3.0011,  0.4992], b = 0.7003
//! largest difference of the two gradients on the way: below 1e-5
//! ```
use ferrograd::prelude::*;

fn main() {
    manual_seed(42);
    let n = 500;
    let truth = Tensor::new([2.0, -3.0, 0.5f32]);
    let x = Tensor::randn([n, 3]);
    let y = x.matmul(&truth) + 0.7 + Tensor::normal([n], 0.0, 0.02);

    let (mut w, mut b) = (Tensor::zeros([3]), Tensor::zeros(()));
    let (weight, bias) = (Param::new(Tensor::zeros([3])), Param::new(Tensor::zeros(())));
    let mut sgd = Sgd::new([weight.clone(), bias.clone()]).lr(0.1);
    let mut difference = 0f64;
    for _ in 0..200 {
        // By hand.
        let r = x.matmul(&w) + &b - &y;
        let dw = x.t().matmul(&r) * (2.0 / n as f64);
        let db = r.sum() * (2.0 / n as f64);

        // By the engine.
        let prediction = Var::from(&x).matmul(&weight.var()) + bias.var();
        let grads = mse(&prediction, &y).backward();
        difference = difference.max((grads.wrt(&weight) - &dw).abs().max().item::<f64>());

        w = w - dw * 0.1;
        b = b - db * 0.1;
        sgd.step(&grads);
    }
    println!("true     w = {truth}, b = 0.7");
    println!("by hand  w = {w}, b = {b}");
    println!("autograd w = {}, b = {}", weight.tensor(), bias.tensor());
    let verdict = if difference < 1e-5 { "below 1e-5".to_string() } else { format!("{difference:e}") };
    println!("largest difference of the two gradients on the way: {verdict}");
}
