//! What the recurrent ops share: their inputs, and the loop over time.

use crate::Var;
use ferrograd_tensor::ops::recurrence::{RecurrentWeights, SequenceOptions, active_rows};
use ferrograd_tensor::{DType, Tensor};

/// Which biases there are. Inputs of the recurrent functions are `x, w_ih, w_hh, states…, b_ih?, b_hh?`.
#[derive(Clone, Copy)]
pub(super) struct Inputs {
    pub states: usize,
    pub b_ih: bool,
    pub b_hh: bool,
}

impl Inputs {
    /// Where the biases are.
    pub(super) fn biases(&self) -> [Option<usize>; 2] {
        let first = 3 + self.states;
        [self.b_ih.then_some(first), self.b_hh.then_some(first + self.b_ih as usize)]
    }
    pub(super) fn count(&self) -> usize {
        3 + self.states + self.b_ih as usize + self.b_hh as usize
    }
    /// The weights among the inputs.
    pub(super) fn weights<'a, X>(&self, x: &'a [X]) -> RecurrentWeights<'a, X> {
        let [b_ih, b_hh] = self.biases().map(|i| i.map(|i| &x[i]));
        RecurrentWeights { w_ih: &x[1], w_hh: &x[2], b_ih, b_hh }
    }
}

/// All inputs, lowered under autocast and in one dtype.
#[track_caller]
pub(super) fn unify(x: &Var, weights: &RecurrentWeights<Var>, states: &[&Var]) -> (Inputs, Vec<Var>) {
    let biases = [weights.b_ih, weights.b_hh];
    let all =
        [x, weights.w_ih, weights.w_hh].into_iter().chain(states.iter().copied()).chain(biases.into_iter().flatten());
    let all: Vec<Var> = all.map(Var::lowered).collect();
    let dtype = all.iter().map(Var::dtype).fold(all[0].dtype(), DType::promote);
    let inputs = Inputs { states: states.len(), b_ih: biases[0].is_some(), b_hh: biases[1].is_some() };
    (inputs, all.iter().map(|x| x.to_dtype(dtype)).collect())
}

/// `W_ih x + bias` over all of time.
pub(super) fn input_gates(x: &Var, w_ih: &Var, bias: Option<Var>) -> Var {
    let gx = x.matmul(&w_ih.t());
    match bias {
        Some(bias) => gx.add(&bias),
        None => gx,
    }
}

/// The sum of the two, where there are any.
pub(super) fn sum_of(a: Option<&Var>, b: Option<&Var>) -> Option<Var> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.add(b)),
        (a, b) => a.or(b).cloned(),
    }
}

/// Runs `step(gxₜ, states before) -> states after` over time; `states[0]` is the output. Returns the outputs `[T, B, H]` and
/// the final states.
pub(super) fn run<const S: usize>(
    gx: &Var,
    options: &SequenceOptions,
    mut states: [Var; S],
    step: impl Fn(Var, &[Var; S]) -> [Var; S],
) -> (Var, [Var; S]) {
    let ([b, h], steps): ([usize; 2], usize) = (states[0].dims_of("sequence"), gx.dim(0));
    let device = gx.device();
    let zero = Var::constant(Tensor::full_on([steps.min(1), b, h], 0.0, gx.dtype(), &device));
    if steps == 0 {
        return (zero, states);
    }
    let zero = zero.reshape([b, h]);
    let mut outputs = vec![zero.clone(); steps];
    for s in 0..steps {
        let t = if options.reverse { steps - 1 - s } else { s };
        let new = step(gx.select(0, t as isize), &states);
        match active_rows(options, t, &device) {
            None => {
                outputs[t] = new[0].clone();
                states = new;
            }
            Some(active) => {
                outputs[t] = Var::where_(&active, &new[0], &zero);
                states = std::array::from_fn(|n| Var::where_(&active, &new[n], &states[n]));
            }
        }
    }
    (Var::stack(&outputs.iter().collect::<Vec<_>>(), 0), states)
}

/// `W_hh (mask ∘ h)`.
pub(super) fn recurrent_product(h: &Var, w_hh: &Var, options: &SequenceOptions) -> Var {
    match &options.recurrent_mask {
        Some(mask) => (h * &mask.to_dtype(h.dtype())).matmul(&w_hh.t()),
        None => h.matmul(&w_hh.t()),
    }
}
