//! One step of an optimiser, in one pass over all parameters.

use super::tensors::{entry, tables};
use crate::cuda::Cuda;
use crate::programs::{KernelId, Program};
use ferrograd_tensor::ops::optimizer::{OptimizerStep, StepCell, Update};

/// The rule in `kernels/optimizer.cu`, and its numbers in the order in which it takes them.
fn rule(step: &OptimizerStep) -> (&'static str, Vec<f64>) {
    match *step {
        OptimizerStep::Sgd(o) if o.momentum == 0.0 => ("RULE=sgd STATES=0", vec![o.lr, o.weight_decay]),
        OptimizerStep::Sgd(o) => {
            let look_ahead = if o.nesterov { o.momentum } else { 0.0 };
            let fresh = 1.0 - o.dampening;
            let first = o.first as u8 as f64;
            ("RULE=sgd_momentum STATES=1", vec![o.lr, o.weight_decay, o.momentum, fresh, look_ahead, first])
        }
        OptimizerStep::Adam(o) => {
            let correction = |beta: f64| 1.0 - beta.powf(o.step as f64);
            let (keep, l2) = if o.decoupled { (1.0 - o.lr * o.weight_decay, 0.0) } else { (1.0, o.weight_decay) };
            let (step_size, scale2) = (o.lr / correction(o.beta1), 1.0 / correction(o.beta2).sqrt());
            let numbers = vec![step_size, keep, l2, 1.0 - o.beta1, o.beta2, 1.0 - o.beta2, scale2, o.eps];
            (if o.amsgrad { "RULE=amsgrad STATES=3" } else { "RULE=adam STATES=2" }, numbers)
        }
        OptimizerStep::RmsProp(o) => {
            let define = match (o.centered, o.momentum != 0.0) {
                (false, false) => "RULE=rmsprop STATES=1",
                (true, false) => "RULE=rmsprop_centered STATES=2",
                (false, true) => "RULE=rmsprop_momentum STATES=2",
                (true, true) => "RULE=rmsprop_centered_momentum STATES=3",
            };
            (define, vec![o.lr, o.weight_decay, o.alpha, 1.0 - o.alpha, o.eps, o.momentum])
        }
        OptimizerStep::Adagrad(o) => {
            ("RULE=adagrad STATES=1", vec![o.lr / (1.0 + (o.step - 1) as f64 * o.lr_decay), o.weight_decay, o.eps])
        }
        OptimizerStep::Adadelta(o) => ("RULE=adadelta STATES=2", vec![o.lr, o.weight_decay, o.rho, 1.0 - o.rho, o.eps]),
        OptimizerStep::Lion(o) => {
            ("RULE=lion STATES=1", vec![o.lr, o.weight_decay, o.beta1, 1.0 - o.beta1, o.beta2, 1.0 - o.beta2])
        }
        OptimizerStep::Lerp { weight } => ("RULE=lerp STATES=0", vec![weight]),
        OptimizerStep::ScaleAdd { keep, scale } => ("RULE=scale_add STATES=0", vec![keep, scale]),
    }
}

/// What `optimizer.cu` takes.
pub type Numbers = [f64; 8];

/// The rule's program, and its numbers as the kernel takes them.
pub fn numbers(step: &OptimizerStep) -> (&'static str, Numbers) {
    let (define, given) = rule(step);
    let mut numbers = [0.0; 8];
    numbers[..given.len()].copy_from_slice(&given);
    (define, numbers)
}

/// See [`Backend::optimizer_steps`](ferrograd_tensor::backend::Backend::optimizer_steps).
#[track_caller]
pub fn optimizer_steps(cuda: &'static Cuda, step: &StepCell, updates: &mut [Update]) {
    let Some(dtype) = updates.first().map(|u| u.p.dtype()) else { return };
    let (define, numbers) = numbers(&step.get());
    let id = KernelId { file: "optimizer.cu", define, name: "step", dtype: Some(dtype) };
    let tables = tables(updates.iter().map(|u| entry([&*u.p, u.g].into_iter().chain(u.state.iter()))));
    let live = cuda.live_step(step, define);
    for table in tables {
        // SAFETY: the op has counted the state; all are row-major, of one shape and dtype, and those that change are not shared.
        unsafe { table.launch(cuda, id, |a| a.value(numbers).value(live)) };
    }
}

/// Every program of these operations.
pub const PROGRAMS: [Program; 13] = [
    ("optimizer.cu", "RULE=sgd STATES=0"),
    ("optimizer.cu", "RULE=sgd_momentum STATES=1"),
    ("optimizer.cu", "RULE=adam STATES=2"),
    ("optimizer.cu", "RULE=amsgrad STATES=3"),
    ("optimizer.cu", "RULE=rmsprop STATES=1"),
    ("optimizer.cu", "RULE=rmsprop_centered STATES=2"),
    ("optimizer.cu", "RULE=rmsprop_momentum STATES=2"),
    ("optimizer.cu", "RULE=rmsprop_centered_momentum STATES=3"),
    ("optimizer.cu", "RULE=adagrad STATES=1"),
    ("optimizer.cu", "RULE=adadelta STATES=2"),
    ("optimizer.cu", "RULE=lion STATES=1"),
    ("optimizer.cu", "RULE=lerp STATES=0"),
    ("optimizer.cu", "RULE=scale_add STATES=0"),
];
