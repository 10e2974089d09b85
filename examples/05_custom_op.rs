//! 5. An operation of one's own: forward, backward, and the proof that they belong together.
//!
//! `squash(x) = x / (1 + |x|)`, a cheap relative of tanh, with `d squash / dx = 1 / (1 + |x|)²`.
//!
//! `cargo run --release --example 05_custom_op` prints
//!
//! ```text
//! squash  = [-0.75,  0.00,  0.50]
//! squash' = [0.0625, 1.0000, 0.2500]
//! gradcheck: right, gradgradcheck: right
//! with a factor forgotten: squash: input 0, element 1: backward gives …, finite differences …
//! ```
use ferrograd::prelude::*;

struct Squash {
    /// What backward multiplies by: 1, or something else to see gradcheck notice.
    factor: f64,
}

impl Function for Squash {
    fn name(&self) -> &'static str {
        "squash"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_input(0);
        vec![&x[0] / &(x[0].abs() + 1.0)]
    }
    // Written in operations on `Var`s, the derivative can itself be differentiated.
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let x = saved.input(0);
        let slope = (x.abs() + 1.0).powi(-2);
        vec![g[0].as_ref().map(|g| g * &slope * self.factor)]
    }
}

fn squash(x: &Var) -> Var {
    Squash { factor: 1.0 }.apply1(&[x])
}

fn main() -> Result<(), Error> {
    let x = Var::leaf(Tensor::new([-3.0, 0.0, 1.0]));
    let y = squash(&x);
    println!("squash  = {y}");
    println!("squash' = {}", y.sum().backward().wrt(&x));

    let smooth = [Tensor::new([-3.0, 0.2, 1.0])]; // away from 0, where the second derivative jumps
    gradcheck(|x| squash(&x[0]), &smooth)?;
    gradgradcheck(|x| squash(&x[0]), &smooth)?;
    println!("gradcheck: right, gradgradcheck: right");

    let wrong = gradcheck(|x| Squash { factor: 2.0 }.apply1(&[&x[0]]), &smooth).unwrap_err();
    println!("with a factor forgotten: {wrong}");
    Ok(())
}
