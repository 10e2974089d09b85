//! The gated recurrent unit over a sequence.

use super::recurrence::{Found, Kept, Network, Outputs, backward, forward};
use crate::cuda::Cuda;
use ferrograd_tensor::ops::gru::{GruGradients, GruOutput};
use ferrograd_tensor::ops::recurrence::{SequenceArgs, SequenceGradients};

pub const GRU: Network = Network { define: "NETWORK=Gru", gates: 3, sums: 4, keeps_gates: true };

/// See [`Backend::gru`](ferrograd_tensor::backend::Backend::gru).
#[track_caller]
pub fn gru(cuda: &'static Cuda, args: &SequenceArgs) -> Option<GruOutput> {
    let Outputs { hs, h_n, gates, .. } = forward(cuda, &GRU, args, None);
    Some(GruOutput { hs, h_n, gates: gates? })
}

/// See [`Backend::gru_backward`](ferrograd_tensor::backend::Backend::gru_backward).
#[track_caller]
pub fn gru_backward(
    cuda: &'static Cuda,
    args: &SequenceArgs,
    saved: &GruOutput,
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> GruGradients {
    let kept = Kept { hs: &saved.hs, gates: Some(&saved.gates), cells: None };
    let Found { x, h0, w_hh, w_ih, b_ih, b_hh, .. } = backward(cuda, &GRU, args, kept, gradients, input_gradient);
    GruGradients { x, h0, w_hh, w_ih, b_ih, b_hh }
}
