//! One step of an optimiser, in one pass.

use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::memory::address;
use crate::programs::{KernelId, Program};
use ferrograd_tensor::Tensor;
use ferrograd_tensor::ops::optimizer::OptimizerStep;

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

/// See [`Backend::optimizer_step`](ferrograd_tensor::backend::Backend::optimizer_step).
#[track_caller]
pub fn optimizer_step(cuda: &'static Cuda, step: &OptimizerStep, p: &mut Tensor, g: &Tensor, state: &mut [Tensor]) {
    let (define, given) = rule(step);
    let (mut operands, mut numbers) = ([0u64; 5], [0f64; 8]);
    numbers[..given.len()].copy_from_slice(&given);
    let n = p.numel();
    if n == 0 {
        return;
    }
    let tensors = [&*p, g].into_iter().chain(state.iter());
    tensors.zip(&mut operands).for_each(|(x, at)| *at = address(x));
    let vectors = operands.iter().all(|at| at.is_multiple_of(16));
    let threads = n.div_ceil(if vectors { 16 / p.dtype().size() } else { 1 });
    let id = KernelId { file: "optimizer.cu", define, name: "step", dtype: Some(p.dtype()) };
    let arguments = Arguments::default().value(operands).value(n as i64).value(vectors as i32).value(numbers);
    // SAFETY: the op has counted the state; all are row-major, of one shape and dtype, and those that change are not shared.
    unsafe { cuda.launch(id, cuda.grid_for(threads), BLOCK, 0, arguments) };
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
