//! The simple recurrent network over a sequence.

use super::recurrence::{Found, Kept, Network, Outputs, backward, forward};
use crate::cuda::Cuda;
use ferrograd_tensor::Tensor;
use ferrograd_tensor::ops::recurrence::{SequenceArgs, SequenceGradients};
use ferrograd_tensor::ops::rnn::{RnnGradients, RnnNonlinearity, RnnOutput};

pub const RNN_TANH: Network = Network { define: "NETWORK=Rnn<Tanh>", gates: 1, sums: 1, keeps_gates: false };
pub const RNN_RELU: Network = Network { define: "NETWORK=Rnn<Relu>", ..RNN_TANH };

fn network(nonlinearity: RnnNonlinearity) -> &'static Network {
    match nonlinearity {
        RnnNonlinearity::Tanh => &RNN_TANH,
        RnnNonlinearity::Relu => &RNN_RELU,
    }
}

/// See [`Backend::rnn`](ferrograd_tensor::backend::Backend::rnn).
#[track_caller]
pub fn rnn(cuda: &'static Cuda, args: &SequenceArgs, nonlinearity: RnnNonlinearity) -> RnnOutput {
    let Outputs { hs, h_n, .. } = forward(cuda, network(nonlinearity), args, None);
    RnnOutput { hs, h_n }
}

/// See [`Backend::rnn_backward`](ferrograd_tensor::backend::Backend::rnn_backward).
#[track_caller]
pub fn rnn_backward(
    cuda: &'static Cuda,
    args: &SequenceArgs,
    nonlinearity: RnnNonlinearity,
    hs: &Tensor,
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> RnnGradients {
    let kept = Kept { hs, gates: None, cells: None };
    let Found { x, h0, w_hh, w_ih, b_ih, .. } =
        backward(cuda, network(nonlinearity), args, kept, gradients, input_gradient);
    RnnGradients { x, h0, w_hh, w_ih, bias: b_ih }
}
