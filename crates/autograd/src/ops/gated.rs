//! Gated activations: the gradients of gate and up in one pass.

use super::cast::promote;
use crate::{Function, Saved, Var};
use ferrograd_tensor::{Activation, Tensor};

/// `f(gate) · up`; inputs gate and up.
struct Gated(Activation);
impl Function for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }
    fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        saved.save_inputs();
        vec![x[0].gated(&x[1], self.0)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(g) = &g[0] else { return vec![None, None] };
        let [gate, up] = [0, 1].map(|i| saved.input(i).into_tensor());
        let (dgate, dup) = gate.gated_backward(&up, self.0, g.tensor());
        vec![Some(Var::constant(dgate)), Some(Var::constant(dup))]
    }
    fn composed(&self, x: &[Var]) -> Option<Vec<Var>> {
        let [gate, up] = [0, 1].map(|i| x[i].to_dtype(x[i].dtype().accumulator()));
        Some(vec![(gate.activate(self.0) * up).to_dtype(x[0].dtype())])
    }
}

impl Var {
    /// `f(gate) · up` elementwise, this being the gate; see [`Tensor::gated`]. The two may be halves of one product:
    ///
    /// ```
    /// use ferrograd_autograd::{Activation, Var};
    /// use ferrograd_tensor::Tensor;
    /// let (x, w) = (Var::constant(Tensor::randn([5, 4])), Var::leaf(Tensor::randn([6, 4])));
    /// let halves = x.linear(&w, None).chunk(2, -1);
    /// let y = halves[0].gated(&halves[1], Activation::GeluTanh);
    /// assert_eq!(y.dims(), [5, 3]);
    /// ```
    #[track_caller]
    pub fn gated(&self, up: &Var, activation: Activation) -> Var {
        let [gate, up] = promote("gated", [self, up]);
        Gated(activation).apply1(&[&gate, &up])
    }
    /// SwiGLU, `silu(gate) · up`, this being the gate: the activation of Llama. N. Shazeer 2020, arXiv:2002.05202.
    #[track_caller]
    pub fn swiglu(&self, up: &Var) -> Var {
        self.gated(up, Activation::Silu)
    }
    /// GEGLU, `gelu(gate) · up`, this being the gate. N. Shazeer 2020, arXiv:2002.05202.
    #[track_caller]
    pub fn geglu(&self, up: &Var) -> Var {
        self.gated(up, Activation::Gelu)
    }
}
