//! Memory for time: recompute activations in backward instead of keeping them. Chen et al. 2016, arXiv:1604.06174.

use crate::engine::differentiate_up_to;
use crate::function::{Function, Saved};
use crate::mode::{self, Captured};
use crate::var::Var;
use ferrograd_tensor::Tensor;
use ferrograd_tensor::random::{RngState, reserve, rng_state, with_rng_state};
use std::sync::{Arc, Mutex};

type Segment = Arc<dyn Fn(&[Var]) -> Vec<Var> + Send + Sync>;

struct Checkpoint {
    segment: Segment,
    outputs: Mutex<Option<Vec<Tensor>>>,
    arguments: usize,
    /// What the segment uses besides its arguments: parameters, and values from outside.
    captured: Vec<Var>,
    rng: RngState,
    settings: mode::Settings,
}

impl Function for Checkpoint {
    fn name(&self) -> &'static str {
        "checkpoint"
    }
    fn forward(&self, _: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
        (0..self.arguments).for_each(|i| saved.save_input(i));
        self.outputs.lock().unwrap_or_else(|e| e.into_inner()).take().expect("a checkpoint is applied once")
    }
    fn backward(&self, saved: &Saved, grads: &[Option<Var>]) -> Vec<Option<Var>> {
        // Fresh identities, at which the walk through the recomputed segment stops.
        let fresh = |i| {
            let x = saved.input(i);
            match (saved.needs_grad(i), saved.create_graph()) {
                (false, _) => x,
                (true, true) => crate::ops::identity(&x),
                (true, false) => Var::leaf(x.into_tensor()),
            }
        };
        mode::enable_grad(|| {
            let arguments: Vec<Var> = (0..self.arguments).map(fresh).collect();
            let outputs = self.settings.run(|| with_rng_state(self.rng, || (self.segment)(&arguments)));
            let (outputs, seeds): (Vec<Var>, Vec<Var>) =
                outputs.into_iter().zip(grads).filter_map(|(y, g)| Some((y, g.clone()?))).unzip();
            let all: Vec<&Var> = arguments.iter().chain(&self.captured).collect();
            let wanted: Vec<usize> = (0..all.len()).filter(|&i| saved.needs_grad(i)).collect();
            let targets: Vec<&Var> = wanted.iter().map(|&i| all[i]).collect();
            let found = differentiate_up_to(&targets, &outputs, seeds, saved.create_graph());
            let mut result = vec![None; all.len()];
            wanted.into_iter().zip(found).for_each(|(i, g)| result[i] = g);
            result
        })
    }
}

/// `segment(inputs)`, of which only the inputs are kept: backward computes the rest again, with the same random
/// numbers and the same autocast. Parameters that the segment uses get their gradients as usual.
///
/// ```
/// use ferrograd_autograd::{Var, checkpoint};
/// use ferrograd_tensor::Tensor;
/// let x = Var::leaf(Tensor::scalar(0.5));
/// let w = Var::leaf(Tensor::scalar(2.0));
/// let y = checkpoint({ let w = w.clone(); move |x| vec![(&x[0] * &w).tanh()] }, &[&x]);
/// let grads = y[0].backward();
/// assert!(grads.get(&x).is_some() && grads.get(&w).is_some());
/// ```
#[track_caller]
pub fn checkpoint(segment: impl Fn(&[Var]) -> Vec<Var> + Send + Sync + 'static, inputs: &[&Var]) -> Vec<Var> {
    if !mode::is_grad_enabled() {
        return segment(&inputs.iter().map(|&x| x.clone()).collect::<Vec<_>>());
    }
    let arguments: Vec<Var> = inputs.iter().map(|x| x.detach()).collect();
    // A generator of the segment's own: what other threads draw meanwhile must not change what backward draws again.
    let rng = rng_state();
    let (Captured { value, mut captured }, end) =
        with_rng_state(rng, || (mode::capture(|| segment(&arguments)), rng_state()));
    if end.seed == rng.seed {
        reserve(end.offset.wrapping_sub(rng.offset));
    }
    // An output with history is a value from outside, returned as it is.
    value.iter().for_each(|y| mode::push_new(&mut captured, y));
    let outputs = Mutex::new(Some(value.into_iter().map(Var::into_tensor).collect()));
    let settings = mode::Settings::current();
    let all: Vec<Var> = inputs.iter().map(|&x| x.clone()).chain(captured.iter().cloned()).collect();
    let op = Checkpoint { segment: Arc::new(segment), outputs, arguments: inputs.len(), captured, rng, settings };
    op.apply(&all.iter().collect::<Vec<_>>())
}
