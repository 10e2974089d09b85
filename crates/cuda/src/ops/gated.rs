//! Gated activations, of operands of any strides.

use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::{Layout, in_chunks};
use crate::programs::{KernelId, Program};
use ferrograd_tensor::{Gate, Tensor};

/// What is defined for a gate's program.
fn define(activation: Gate) -> &'static str {
    match activation {
        Gate::Sigmoid => "FUNCTION=sigmoid DERIVATIVE=sigmoid_grad AT=y",
        Gate::Relu => "FUNCTION=relu DERIVATIVE=relu_grad AT=x",
        Gate::Gelu => "FUNCTION=gelu DERIVATIVE=gelu_grad AT=x",
        Gate::GeluTanh => "FUNCTION=gelu_tanh DERIVATIVE=gelu_tanh_grad AT=x",
        Gate::Silu => "FUNCTION=silu DERIVATIVE=silu_grad AT=x",
    }
}

/// See [`Backend::gated`](ferrograd_tensor::backend::Backend::gated).
#[track_caller]
pub fn gated(cuda: &'static Cuda, gate: &Tensor, up: &Tensor, activation: Gate) -> Tensor {
    let y = cuda.empty(gate.shape(), gate.dtype());
    // SAFETY: the kernels take three operands of one dtype.
    unsafe { launch(cuda, ["gated", "gated_in_vectors"], activation, [gate, up, &y]) };
    y
}

/// See [`Backend::gated_backward`](ferrograd_tensor::backend::Backend::gated_backward).
#[track_caller]
pub fn gated_backward(
    cuda: &'static Cuda,
    gate: &Tensor,
    up: &Tensor,
    activation: Gate,
    g: &Tensor,
) -> (Tensor, Tensor) {
    let [dgate, dup] = [0; 2].map(|_| cuda.empty(gate.shape(), gate.dtype()));
    let names = ["gated_backward", "gated_backward_in_vectors"];
    // SAFETY: the kernels take five operands of one dtype.
    unsafe { launch(cuda, names, activation, [gate, up, g, &dgate, &dup]) };
    (dgate, dup)
}

/// Launches the kernel that takes single elements, or the one that takes 16 bytes at once if the operands' rows let it.
///
/// # Safety
/// The kernels take so many operands of one dtype, and where their chunks begin.
#[track_caller]
unsafe fn launch<const N: usize>(
    cuda: &Cuda,
    [single, vectors]: [&'static str; 2],
    activation: Gate,
    operands: [&Tensor; N],
) {
    if operands[0].numel() == 0 {
        return;
    }
    let length = 16 / operands[0].dtype().size();
    let (name, chunks) = match operands.iter().all(|x| in_chunks(x, length)) {
        true => (vectors, Layout::of(operands.map(|x| x.slice_dim(-1, 0, None, length as isize)).each_ref())),
        false => (single, Layout::of(operands)),
    };
    let id = KernelId { file: "gated.cu", define: define(activation), name, dtype: Some(operands[0].dtype()) };
    let arguments = operands.iter().fold(Arguments::default(), |a, x| a.tensor(x)).value(chunks);
    // SAFETY: the caller's promise; the chunks are the operands' own.
    unsafe { cuda.launch(id, cuda.grid_for(chunks.numel()), BLOCK, 0, arguments) };
}

/// Every program of these operations.
pub fn programs() -> [Program; Gate::ALL.len()] {
    Gate::ALL.map(|activation| ("gated.cu", define(activation)))
}
