//! The long short-term memory over a sequence.

use super::recurrence::{Found, Kept, Network, Outputs, backward, forward};
use crate::cuda::Cuda;
use ferrograd_tensor::Tensor;
use ferrograd_tensor::ops::lstm::{LstmGradients, LstmOutput};
use ferrograd_tensor::ops::recurrence::{SequenceArgs, SequenceGradients};

pub const LSTM: Network = Network { define: "NETWORK=Lstm", gates: 4, sums: 4, keeps_gates: true };

/// See [`Backend::lstm`](ferrograd_tensor::backend::Backend::lstm).
#[track_caller]
pub fn lstm(cuda: &'static Cuda, args: &SequenceArgs, c0: &Tensor) -> Option<LstmOutput> {
    let Outputs { hs, h_n, c_n, gates, cells } = forward(cuda, &LSTM, args, Some(c0));
    Some(LstmOutput { hs, h_n, c_n: c_n?, gates: gates?, cells: cells? })
}

/// See [`Backend::lstm_backward`](ferrograd_tensor::backend::Backend::lstm_backward).
#[track_caller]
pub fn lstm_backward(
    cuda: &'static Cuda,
    args: &SequenceArgs,
    c0: &Tensor,
    saved: &LstmOutput,
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> Option<LstmGradients> {
    let kept = Kept { hs: &saved.hs, gates: Some(&saved.gates), cells: Some((c0, &saved.cells)) };
    let Found { x, h0, c0, w_hh, w_ih, b_ih, .. } = backward(cuda, &LSTM, args, kept, gradients, input_gradient);
    Some(LstmGradients { x, h0, c0: c0?, w_hh, w_ih, bias: b_ih })
}
