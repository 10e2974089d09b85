//! Fused LSTM, GRU and RNN against the step-by-step composition, and the ops' rules.

mod plain;
mod sample;

use ferrograd_tensor::ops::gru::gru;
use ferrograd_tensor::ops::lstm::lstm;
use ferrograd_tensor::ops::recurrence::{RecurrentWeights, SequenceOptions};
use ferrograd_tensor::ops::rnn::{RnnNonlinearity, rnn};
use ferrograd_tensor::{DType, Device, Tensor, catch};
use plain::device as plain;
use proptest::prelude::*;
use sample::{distance, values};

/// Every output of op `kind` (0 LSTM, 1 GRU, 2 and 3 RNN).
fn run(kind: usize, x: &[Tensor], biases: [bool; 2], options: &SequenceOptions) -> Vec<Tensor> {
    let [b_ih, b_hh] = [(0, 5), (1, 6)].map(|(i, at)| biases[i].then_some(&x[at]));
    let weights = RecurrentWeights { w_ih: &x[1], w_hh: &x[2], b_ih, b_hh };
    match kind {
        0 => {
            let y = lstm(&x[0], &weights, &x[3], &x[4], options);
            vec![y.hs, y.h_n, y.c_n, y.gates, y.cells]
        }
        1 => {
            let y = gru(&x[0], &weights, &x[3], options);
            vec![y.hs, y.h_n, y.gates]
        }
        _ => {
            let act = if kind == 2 { RnnNonlinearity::Tanh } else { RnnNonlinearity::Relu };
            let y = rnn(&x[0], &weights, &x[3], act, options);
            vec![y.hs, y.h_n]
        }
    }
}

fn inputs(kind: usize, [t, b, i, h]: [usize; 4], dtype: DType, seed: u64) -> Vec<Tensor> {
    let g = [4, 3, 1, 1][kind] * h;
    let shapes: [&[usize]; 7] = [&[t, b, i], &[g, i], &[g, h], &[b, h], &[b, h], &[g], &[g]];
    shapes.iter().enumerate().map(|(n, &shape)| values(shape, dtype, seed / 5u64.pow(n as u32))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn fused_is_composed(
        (kind, t, b, i, h) in (0usize..4, 0usize..6, 0usize..4, 0usize..4, 0usize..5),
        (bias_ih, bias_hh, reverse, ragged, masked) in any::<(bool, bool, bool, bool, bool)>(),
        (dtype, seed) in (0usize..4, 0u64..1 << 40),
    ) {
        let dtype = [DType::F64, DType::F32, DType::BF16, DType::F16][dtype];
        let x = inputs(kind, [t, b, i, h], dtype, seed);
        let options = SequenceOptions {
            reverse,
            lengths: ragged.then(|| (0..b).map(|r| (seed >> (8 * r)) as usize % (t + 1)).collect()),
            recurrent_mask: masked.then(|| values([b, h], dtype, seed / 3).gt_scalar(0.0).to_dtype(dtype).mul_scalar(2.0)),
        };
        let fused = run(kind, &x, [bias_ih, bias_hh], &options);
        let there = |x: &Tensor| x.to_device(&plain());
        let composed_options =
            SequenceOptions { recurrent_mask: options.recurrent_mask.as_ref().map(there), ..options.clone() };
        let x: Vec<Tensor> = x.iter().map(there).collect();
        let gates = [3, 2, usize::MAX, usize::MAX][kind];
        let composed = run(kind, &x, [bias_ih, bias_hh], &composed_options);
        for (n, (fused, composed)) in fused.iter().zip(composed).enumerate() {
            // The gates of a step that a row does not have are not specified.
            if ragged && n == gates {
                continue;
            }
            let composed = composed.to_device(&Device::default());
            // Errors of a step (sums of a few terms of size about one) may grow by the recurrent weights' norm (≤ 8 for
            // H = 4 and a mask of 2, without a squashing function in the ReLU network) at each of the six steps.
            let size = composed.to_f64_vec().iter().fold(1.0f64, |m, x| m.max(x.abs()));
            // A card rounds what half types multiply at each step, the CPU the outputs alone.
            let rounded = match dtype.is_half() {
                true if Device::default() != Device::CPU => 16.0 * dtype.epsilon(),
                true if fused.dtype().is_half() => 2.0 * dtype.epsilon(),
                _ => 0.0,
            };
            let tolerance = size * (1e4 * dtype.accumulator().epsilon() + rounded);
            prop_assert!(distance(fused, &composed) <= tolerance, "kind {kind}: {}", distance(fused, &composed));
        }
    }
}

#[test]
fn one_step_of_an_lstm_by_hand() {
    // i = f = o = σ(0) = 1/2, g = tanh(1): c = 1/2 · 3 + 1/2 · tanh 1.
    let w_ih = Tensor::new([[0.0], [0.0], [1.0], [0.0f64]]);
    let w_hh = Tensor::full_on([4, 1], 0.0, DType::F64, &Device::default());
    let weights = RecurrentWeights { w_ih: &w_ih, w_hh: &w_hh, b_ih: None, b_hh: None };
    let one = Tensor::new([[1.0f64]]);
    let y = lstm(&one.unsqueeze(0), &weights, &one, &(&one * 3.0), &SequenceOptions::default());
    let c = 0.5 * 3.0 + 0.5 * 1f64.tanh();
    assert!((y.c_n.item::<f64>() - c).abs() < 1e-15);
    assert!((y.h_n.item::<f64>() - 0.5 * c.tanh()).abs() < 1e-15);
}

#[test]
fn errors_name_the_rule() {
    let x = inputs(0, [3, 2, 4, 5], DType::F32, 1);
    let none = SequenceOptions::default();
    let error =
        |x: &[Tensor], options: &SequenceOptions| catch(|| run(0, x, [true, true], options)).unwrap_err().to_string();
    let with = |at: usize, new: Tensor| {
        let mut x = x.clone();
        x[at] = new;
        x
    };
    let cases = [
        (error(&with(0, Tensor::zeros([3, 4])), &none), "the input must be [time, batch, features], got [3, 4]"),
        (error(&with(2, Tensor::zeros([15, 5])), &none), "w_hh must be [4·H, H], got [15, 5]"),
        (error(&with(1, Tensor::zeros([20, 3])), &none), "w_ih must be [gates · H, features] = [20, 4], got [20, 3]"),
        (error(&with(5, Tensor::zeros([19])), &none), "b_ih must be [gates · H] = [20], got [19]"),
        (error(&with(3, Tensor::zeros([1, 5])), &none), "h0 must be [batch, H] = [2, 5], got [1, 5]"),
        (error(&with(4, x[4].to_dtype(DType::F64)), &none), "the input is f32 and c0 is f64"),
        (error(&x, &SequenceOptions { lengths: Some(vec![1]), ..none.clone() }), "1 lengths for a batch of 2"),
        (
            error(&x, &SequenceOptions { lengths: Some(vec![1, 4]), ..none.clone() }),
            "length 4 of row 1 exceeds the 3 time steps",
        ),
    ];
    for (message, part) in cases {
        assert!(message.starts_with("lstm: ") && message.contains(part), "{message}");
    }
}
