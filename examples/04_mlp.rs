//! 4. A multi-layer perceptron learns two interleaved spirals, which no straight line separates.
//!
//! `cargo run --release --example 04_mlp` prints a summary of the model, a falling loss, and at the end an accuracy
//! above 99 % and the plane as the model sees it.
use ferrograd::prelude::*;

#[derive(Module)]
struct Mlp {
    input: Linear,
    hidden: Linear,
    output: Linear,
}

impl Mlp {
    /// points `[B, 2]` → logit of the second spiral `[B]`
    fn forward(&self, x: &Var) -> Var {
        let h = self.hidden.forward(&self.input.forward(x).tanh()).tanh();
        self.output.forward(&h).squeeze(1)
    }
}

/// `n` points of each spiral: `r = t`, `φ = 2πt + kπ + noise` for t in [0.1, 1].
fn spirals(n: usize) -> (Tensor, Tensor) {
    let arm = |k: f64| {
        let t = Tensor::uniform([n], 0.1, 1.0);
        let angle = &t * (2.0 * std::f64::consts::PI) + k * std::f64::consts::PI + Tensor::normal([n], 0.0, 0.08);
        Tensor::stack(&[&(&t * &angle.cos()), &(&t * &angle.sin())], 1)
    };
    let labels = Tensor::cat(&[&Tensor::zeros([n]), &Tensor::ones([n])], 0);
    (Tensor::cat(&[&arm(0.0), &arm(1.0)], 0), labels)
}

fn main() {
    manual_seed(1);
    let model = Mlp { input: Linear::new(2, 32), hidden: Linear::new(32, 32), output: Linear::new(32, 1) };
    println!("{}", model.summary());
    let (x, y) = spirals(400);
    let x = Var::from(x);
    let mut adam = Adam::new(model.parameters()).lr(0.01);
    for step in 1..=800 {
        let loss = bce_with_logits(&model.forward(&x), &y);
        adam.step(&loss.backward());
        if step % 200 == 0 {
            println!("step {step}: loss {:.4}", loss.item::<f32>());
        }
    }

    let (test, labels) = spirals(400);
    let predicted = no_grad(|| model.forward(&test.into())).tensor().gt_scalar(0.0);
    let right = predicted.eq(&labels.gt_scalar(0.5)).to_dtype(DType::F32).mean();
    println!("accuracy on new points: {:.1} %", 100.0 * right.item::<f32>());
    for row in 0..16 {
        let points: Vec<[f32; 2]> = (0..48).map(|i| [i as f32 / 23.5 - 1.0, 1.0 - row as f32 / 7.5]).collect();
        let side = no_grad(|| model.forward(&Tensor::new(points).into())).tensor().to_vec::<f32>();
        println!("{}", side.iter().map(|&l| if l > 0.0 { '#' } else { '.' }).collect::<String>());
    }
}
