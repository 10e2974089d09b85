//! 7. An LSTM remembers: the adding problem, on which it was first shown (Hochreiter & Schmidhuber 1997, experiment 4).
//!
//! A sequence of T pairs: a number in [0, 1), and a mark that is 1 at two places, one in either half of the sequence, and else 0. The
//! target is the sum of the two marked numbers. Who always says 1 has a mean square error of 1/6 = 0.167; to do better, a network has
//! to carry a number over many steps, which a plain recurrent one learns only for short sequences.
//!
//! `cargo run --release --example 07_lstm` prints a loss that stays near 0.167 for a while and then falls far below it, and some sums.
//! With `--features cuda` and the argument `cuda` it runs on a card; a second argument is the number of steps.
use ferrograd::prelude::*;

const T: usize = 40;

#[derive(Module)]
struct Adder {
    lstm: Lstm,
    head: Linear,
}

impl Adder {
    fn new(hidden: usize) -> Adder {
        Adder { lstm: Lstm::new(2, hidden), head: Linear::new(hidden, 1) }
    }
    /// pairs `[B, T, 2]` → the sum of the marked numbers `[B]`
    fn forward(&self, pairs: &Tensor) -> Var {
        let (_, (h_n, _)) = self.lstm.forward(&pairs.into());
        self.head.forward(&h_n.select(0, -1)).squeeze(1)
    }
}

/// `b` sequences `[B, T, 2]` and their sums `[B]`.
fn sequences(b: usize) -> (Tensor, Tensor) {
    let numbers = Tensor::rand([b, T]);
    let half = |from: usize| Tensor::randint(from as i64, (from + T / 2) as i64, [b, 1]);
    let places = Tensor::cat(&[&half(0), &half(T / 2)], 1);
    let marks = Tensor::zeros([b, T]).scatter_add(1, &places, &Tensor::ones([b, 2]));
    (Tensor::stack(&[&numbers, &marks], 2), (&numbers * &marks).sum_dims([1]))
}

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    ferrograd::device(&arguments.next().unwrap_or("cpu".into()))?.make_default();
    let steps = match arguments.next() {
        Some(steps) => steps.parse().map_err(|_| Error::format("steps", format!("{steps:?} is no number")))?,
        None => 1000,
    };
    manual_seed(1);
    let model = Adder::new(32);
    let mut adam = Adam::new(model.parameters()).lr(5e-3);
    for step in 1..=steps {
        let (pairs, sums) = sequences(64);
        let loss = mse(&model.forward(&pairs), &sums);
        let mut gradients = loss.backward();
        clip_grad_norm(&mut gradients, &model.parameters(), 1.0, 2.0);
        adam.step(&gradients);
        if step % 100 == 0 || step == steps {
            println!("step {step}: loss {:.4}", loss.item::<f32>());
        }
    }
    let (pairs, sums) = sequences(5);
    let said = no_grad(|| model.forward(&pairs));
    println!("sums {sums}\nsaid {said}");
    Ok(())
}
