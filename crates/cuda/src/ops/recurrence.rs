//! What RNN, LSTM and GRU share: the products for all of time, and the pass through time between them.
//!
//! The recurrent product is made on tensor cores for half types, and for f32 where TF32 will do; else it is exact.
//!
//! What is rounded: in half types states, cells, activated gates and all sums are f32 through all of time. Rounded are the input's part
//! of the sums, once, as a linear layer's result is; the masked state, where it is multiplied; the outputs; and the sums' gradients, of
//! which those of the weights, the input and the state before are products. TF32 rounds the operands of products, and nothing else.
//! Where the weights fit on no chip there is a launch for each step, and the recurrent product's result is rounded too.

use super::copy::copy;
use super::elementwise::cast;
use super::gru::GRU;
use super::lstm::LSTM;
use super::recurrence_pass::{BackwardPass, Direction, ForwardPass, Pass, States, optional};
use super::reduce::reduce;
use super::rnn::{RNN_RELU, RNN_TANH};
use crate::cuda::Cuda;
use crate::memory::address;
use crate::programs::Program;
use ferrograd_tensor::Tensor;
use ferrograd_tensor::backend::{Backend, Reduce};
use ferrograd_tensor::ops::recurrence::{SequenceArgs, SequenceGradients};

/// A network, as `kernels/recurrence.cuh` has it.
pub struct Network {
    pub define: &'static str,
    /// With weights of their own.
    pub gates: usize,
    /// Those that are kept, and have gradients.
    pub sums: usize,
    /// Are the activated gates kept, or are the outputs enough?
    pub keeps_gates: bool,
}

/// What [`forward`] makes.
pub struct Outputs {
    pub hs: Tensor,
    pub h_n: Tensor,
    /// The final cell, `[B, H]`, where there is one.
    pub c_n: Option<Tensor>,
    /// `[T, B, sums·H]`, if they are kept.
    pub gates: Option<Tensor>,
    /// `[T, B, H]`, where there are cells.
    pub cells: Option<Tensor>,
}

/// What of it the way back needs.
pub struct Kept<'a> {
    pub hs: &'a Tensor,
    pub gates: Option<&'a Tensor>,
    /// The first cell, and all of them.
    pub cells: Option<(&'a Tensor, &'a Tensor)>,
}

/// What [`backward`] finds.
pub struct Found {
    pub x: Option<Tensor>,
    pub h0: Tensor,
    pub c0: Option<Tensor>,
    pub w_hh: Tensor,
    pub w_ih: Tensor,
    pub b_ih: Tensor,
    pub b_hh: Tensor,
}

/// What is compiled ahead of time.
pub fn programs() -> impl Iterator<Item = Program> {
    let networks = [&LSTM, &GRU, &RNN_TANH, &RNN_RELU];
    let files = ["recurrence_mma.cu", "recurrence_simt.cu", "recurrence_step.cu"];
    networks.into_iter().flat_map(move |network| files.map(|file| (file, network.define)))
}

/// Of the products forward: every weight once for each row and step.
pub fn flops(args: &SequenceArgs) -> f64 {
    let weights = args.weights.w_ih.numel() + args.weights.w_hh.numel();
    2.0 * (args.x.dims()[0] * args.x.dims()[1]) as f64 * weights as f64
}

/// See [`Backend::lstm`] and its like.
#[track_caller]
pub fn forward(cuda: &'static Cuda, network: &Network, args: &SequenceArgs, c0: Option<&Tensor>) -> Outputs {
    let pass = &Pass::new(cuda, network, args);
    let (dtype, wide) = (pass.dtype, pass.dtype.accumulator());
    let outputs = Outputs {
        hs: pass.over_time(1, dtype),
        h_n: pass.state(dtype),
        c_n: c0.map(|_| pass.state(dtype)),
        gates: network.keeps_gates.then(|| pass.over_time(network.sums, wide)),
        cells: c0.map(|_| pass.over_time(1, wide)),
    };
    if pass.batch * pass.hidden == 0 {
        return outputs;
    }
    let x = args.x.linear(args.weights.w_ih, args.weights.b_ih);
    let bias = args.weights.b_hh.map(Tensor::contiguous);
    let (h0, c0) = (args.h0.contiguous(), c0.map(Tensor::contiguous));
    let arrays = ForwardPass {
        sequence: pass.sequence(),
        x: address(&x),
        bias: optional(bias.as_ref()),
        first: [address(&h0), optional(c0.as_ref())],
        hs: address(&outputs.hs),
        last: [address(&outputs.h_n), optional(outputs.c_n.as_ref())],
        gates: optional(outputs.gates.as_ref()),
        cells: optional(outputs.cells.as_ref()),
    };
    // SAFETY: row-major arrays of the pass's shapes and types.
    if !unsafe { pass.launch("recurrence_forward", arrays, Direction::Forward) } {
        forward_by_steps(pass, arrays, &h0, c0.as_ref());
    }
    outputs
}

/// The same, a product and a launch for each step.
#[track_caller]
fn forward_by_steps(pass: &Pass, arrays: ForwardPass, h0: &Tensor, c0: Option<&Tensor>) {
    let wide = pass.dtype.accumulator();
    let (h, c) = (cast(pass.cuda, h0, wide), c0.map(|c0| cast(pass.cuda, c0, wide)));
    let masked = match &pass.mask {
        Some(mask) => cast(pass.cuda, &h.mul(mask), pass.dtype),
        None => copy(pass.cuda, h0),
    };
    let states = States { h: address(&h), c: optional(c.as_ref()), masked: address(&masked) };
    for n in 0..=pass.steps as i32 {
        let product = (n < pass.steps as i32).then(|| pass.cuda.matmul(&masked, &pass.w_hh.t()));
        // SAFETY: row-major arrays of the pass's shapes and types, and the product of the states that the launch before left.
        unsafe { pass.launch_step("recurrence_step_forward", arrays, states, product.as_ref(), n) };
    }
}

/// See [`Backend::lstm_backward`] and its like.
#[track_caller]
pub fn backward(
    cuda: &'static Cuda,
    network: &Network,
    args: &SequenceArgs,
    kept: Kept,
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> Found {
    let pass = &Pass::new(cuda, network, args);
    let dtype = pass.dtype;
    let [d, before] = [network.sums, 1].map(|gates| pass.over_time(gates, dtype));
    let (h0, c0) = (pass.state(dtype), kept.cells.map(|_| pass.state(dtype)));
    if h0.numel() > 0 {
        let upstream = [gradients.hs, gradients.h_n, gradients.c_n].map(|g| g.map(Tensor::contiguous));
        let first = [Some(args.h0), kept.cells.map(|(c0, _)| c0)].map(|x| x.map(Tensor::contiguous));
        let saved = [Some(kept.hs), kept.gates, kept.cells.map(|(_, cells)| cells)].map(|x| x.map(Tensor::contiguous));
        let [hs, gates, cells] = saved.each_ref().map(|x| optional(x.as_ref()));
        let arrays = BackwardPass {
            sequence: pass.sequence(),
            first: first.each_ref().map(|x| optional(x.as_ref())),
            hs,
            gates,
            cells,
            upstream: upstream.each_ref().map(|g| optional(g.as_ref())),
            d: address(&d),
            before: address(&before),
            d_first: [address(&h0), optional(c0.as_ref())],
        };
        // SAFETY: row-major arrays of the pass's shapes and types.
        if !unsafe { pass.launch("recurrence_backward", arrays, Direction::Backward) } {
            backward_by_steps(pass, arrays, &d);
        }
    }
    products(pass, args, d, before, input_gradient, (h0, c0))
}

/// The columns of the sums' gradients `[…, sums·H]` that the input has a part in, and those that the state has.
fn parts(pass: &Pass, d: &Tensor) -> [Tensor; 2] {
    let (width, all) = (pass.network.gates * pass.hidden, pass.network.sums * pass.hidden);
    [0, all - width].map(|start| d.narrow(-1, start, width))
}

/// The way back, a product and a launch for each step.
#[track_caller]
fn backward_by_steps(pass: &Pass, arrays: BackwardPass, d: &Tensor) {
    let wide = pass.dtype.accumulator();
    let [h, c] = [0; 2].map(|_| pass.state(wide));
    let states = States { h: address(&h), c: address(&c), masked: 0 };
    for n in (-1..pass.steps as i32).rev() {
        let product = (n + 1 < pass.steps as i32).then(|| {
            let [_, of_state] = parts(pass, &d.select(0, pass.time((n + 1) as usize)));
            pass.cuda.matmul(&of_state, pass.w_hh)
        });
        // SAFETY: row-major arrays of the pass's shapes and types, and the product of what the launch before wrote.
        unsafe { pass.launch_step("recurrence_step_backward", arrays, states, product.as_ref(), n) };
    }
}

/// All that is no recurrence: with the gradients `d` of all sums, the products that give those of the weights and the input.
#[track_caller]
fn products(
    pass: &Pass,
    args: &SequenceArgs,
    d: Tensor,
    before: Tensor,
    input_gradient: bool,
    (h0, c0): (Tensor, Option<Tensor>),
) -> Found {
    let [t, b, e] = args.x.dims_of("sequence");
    let flat = |x: &Tensor| x.reshape([t * b, x.dims()[2]]);
    let (d, x, before) = (flat(&d), flat(args.x), flat(&before));
    let [of_input, of_state] = parts(pass, &d);
    let sums = reduce(pass.cuda, Reduce::Sum, &d, &[0]);
    let [b_ih, b_hh] = parts(pass, &sums.squeeze(0));
    Found {
        x: input_gradient.then(|| of_input.matmul(&as_in_d(pass, args.weights.w_ih)).reshape([t, b, e])),
        h0,
        c0,
        w_hh: of_state.t().matmul(&before),
        w_ih: as_in_weights(pass, &of_input.t().matmul(&x)),
        b_ih: as_in_weights(pass, &b_ih),
        b_hh: b_hh.contiguous(),
    }
}

/// The rows of the input's weights in the order in which their sums' gradients lie: a GRU's are r z n, and n r z.
#[track_caller]
fn as_in_d(pass: &Pass, w: &Tensor) -> Tensor {
    rotated(pass, w, (pass.network.gates - 1) * pass.hidden)
}

/// And back.
#[track_caller]
fn as_in_weights(pass: &Pass, d: &Tensor) -> Tensor {
    rotated(pass, d, pass.hidden)
}

/// The first `n` rows come last, where the sums of the input and of the state are not the same ones.
#[track_caller]
fn rotated(pass: &Pass, x: &Tensor, n: usize) -> Tensor {
    if pass.network.sums == pass.network.gates {
        return x.contiguous();
    }
    Tensor::cat(&[&x.narrow(0, n, x.dims()[0] - n), &x.narrow(0, 0, n)], 0)
}
