//! 6. A CUDA kernel of one's own, with its derivative: only what happens to one element is written.
//!
//! `squash(x) = x / (1 + |x|)` again, with `d squash / dx = 1 / (1 + |x|)²`.
//!
//! `cargo run --release --features cuda --example 06_cuda_kernel` prints, on a machine with a card,
//!
//! ```text
//! squash  = [-0.75,  0.00,  0.50]
//! squash' = [0.0625, 1.0000, 0.2500]
//! gradcheck: right
//! ```
use ferrograd::cuda::CudaKernel;
use ferrograd::prelude::*;
use std::sync::LazyLock;

static SQUASH: LazyLock<CudaKernel> =
    LazyLock::new(|| CudaKernel::new("squash").inputs(["x"]).outputs(["y"]).body("y[i] = x[i] / (1 + fabs(x[i]));"));
static SQUASH_BACKWARD: LazyLock<CudaKernel> = LazyLock::new(|| {
    let body = "T slope = 1 / (1 + fabs(x[i])); dx[i] = g[i] * slope * slope;";
    CudaKernel::new("squash_backward").inputs(["x", "g"]).outputs(["dx"]).body(body)
});

struct Squash;

impl Function for Squash {
    fn name(&self) -> &'static str {
        "squash"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_input(0);
        SQUASH.run(&[&x[0]], &[])
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let x = saved.input(0);
        let dx = g[0].as_ref().map(|g| SQUASH_BACKWARD.run(&[x.tensor(), g.tensor()], &[]).remove(0));
        vec![dx.map(Var::constant)]
    }
}

fn main() -> Result<(), Error> {
    Device::cuda(0)?.make_default();
    let x = Var::leaf(Tensor::new([-3.0, 0.0, 1.0f32]));
    let y = Squash.apply1(&[&x]);
    println!("squash  = {y}");
    println!("squash' = {}", y.sum().backward().wrt(&x));
    gradcheck(|x| Squash.apply1(&[&x[0]]), &[Tensor::new([-3.0, 0.2, 1.0])])?;
    println!("gradcheck: right");
    Ok(())
}
