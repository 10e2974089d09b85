//! Gated activations, of operands of any strides.

use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::{Layout, in_chunks};
use crate::programs::{KernelId, Program};
use ferrograd_tensor::{Activation, Tensor};

/// What is defined for a gate's program, if it has one: those that models use have.
fn define(activation: Activation) -> Option<&'static str> {
    match activation {
        Activation::Sigmoid => Some("FUNCTION=sigmoid DERIVATIVE=sigmoid_grad AT=y"),
        Activation::Relu => Some("FUNCTION=relu DERIVATIVE=relu_grad AT=x"),
        Activation::Gelu => Some("FUNCTION=gelu DERIVATIVE=gelu_grad AT=x"),
        Activation::GeluTanh => Some("FUNCTION=gelu_tanh DERIVATIVE=gelu_tanh_grad AT=x"),
        Activation::Silu => Some("FUNCTION=silu DERIVATIVE=silu_grad AT=x"),
        _ => None,
    }
}

/// See [`Backend::gated`](ferrograd_tensor::backend::Backend::gated).
#[track_caller]
pub fn gated(cuda: &'static Cuda, gate: &Tensor, up: &Tensor, activation: Activation) -> Option<Tensor> {
    let define = define(activation)?;
    let y = cuda.empty(gate.shape(), gate.dtype());
    // SAFETY: the kernels take three operands of one dtype.
    unsafe { launch(cuda, ["gated", "gated_in_vectors"], define, [gate, up, &y]) };
    Some(y)
}

/// See [`Backend::gated_backward`](ferrograd_tensor::backend::Backend::gated_backward).
#[track_caller]
pub fn gated_backward(
    cuda: &'static Cuda,
    gate: &Tensor,
    up: &Tensor,
    activation: Activation,
    g: &Tensor,
) -> Option<(Tensor, Tensor)> {
    let define = define(activation)?;
    let [dgate, dup] = [0; 2].map(|_| cuda.empty(gate.shape(), gate.dtype()));
    let names = ["gated_backward", "gated_backward_in_vectors"];
    // SAFETY: the kernels take five operands of one dtype.
    unsafe { launch(cuda, names, define, [gate, up, g, &dgate, &dup]) };
    Some((dgate, dup))
}

/// Launches the kernel that takes single elements, or the one that takes 16 bytes at once if the operands' rows let it.
///
/// # Safety
/// The kernels take so many operands of one dtype, and where their chunks begin.
#[track_caller]
unsafe fn launch<const N: usize>(
    cuda: &Cuda,
    [single, vectors]: [&'static str; 2],
    define: &'static str,
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
    let id = KernelId { file: "gated.cu", define, name, dtype: Some(operands[0].dtype()) };
    let arguments = operands.iter().fold(Arguments::default(), |a, x| a.tensor(x)).value(chunks);
    // SAFETY: the caller's promise; the chunks are the operands' own.
    unsafe { cuda.launch(id, cuda.grid_for(chunks.numel()), BLOCK, 0, arguments) };
}

/// Every program of these operations.
pub fn programs() -> impl Iterator<Item = Program> {
    Activation::ALL.into_iter().filter_map(define).map(|define| ("gated.cu", define))
}
