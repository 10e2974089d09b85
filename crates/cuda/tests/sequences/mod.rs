//! Recurrent networks on the card against the CPU's, forward and backward, with all options by chance.

use super::common::{cuda, there};
use super::layouts::Random;
use ferrograd_tensor::ops::gru::{gru, gru_backward};
use ferrograd_tensor::ops::lstm::{lstm, lstm_backward};
use ferrograd_tensor::ops::recurrence::{RecurrentWeights, SequenceArgs, SequenceGradients, SequenceOptions};
use ferrograd_tensor::ops::rnn::{RnnNonlinearity, rnn, rnn_backward};
use ferrograd_tensor::{DType, MatmulPrecision, Tensor, matmul_precision};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Lstm,
    Gru,
    Rnn(RnnNonlinearity),
}
use Kind::{Gru, Lstm, Rnn};
pub const KINDS: [Kind; 4] = [Lstm, Gru, Rnn(RnnNonlinearity::Tanh), Rnn(RnnNonlinearity::Relu)];

impl Kind {
    fn gates(self) -> usize {
        match self {
            Lstm => 4,
            Gru => 3,
            Rnn(_) => 1,
        }
    }
}

/// A network's arguments, and the gradients that come into it.
pub struct Case {
    kind: Kind,
    /// `x w_ih w_hh h0 c0 b_ih b_hh`, and the gradients of `hs h_n c_n`.
    tensors: Vec<Tensor>,
    /// Which biases, and which of the gradients, there are.
    biases: [bool; 2],
    upstream: [bool; 3],
    options: SequenceOptions,
}

impl Case {
    /// All options and layouts by chance, but for the sizes `T B E H`.
    pub fn new(random: &mut Random, kind: Kind, [t, b, e, h]: [usize; 4], dtype: DType) -> Case {
        let g = kind.gates() * h;
        let mut any = |shape: &[usize]| match random.below(2) {
            0 => random.strided(shape, dtype),
            _ => random.values(shape, dtype),
        };
        // Weights under which a state neither dies nor grows: sums of H terms of about one.
        let small = |w: Tensor, n: usize| w.mul_scalar(1.0 / (n.max(1) as f64).sqrt());
        let [w_ih, w_hh] = [e, h].map(|n| small(any(&[g, n]), n));
        let states = [0; 2].map(|_| any(&[b, h]));
        let mut tensors = vec![any(&[t, b, e]), w_ih, w_hh];
        tensors.extend(states);
        tensors.extend([0; 2].map(|_| any(&[g])));
        tensors.extend([any(&[t, b, h]), any(&[b, h]), any(&[b, h])]);
        // A transposed matrix of weights, at times: it is read where it lies.
        if random.below(3) == 0 {
            tensors[2] = tensors[2].t().contiguous().t();
        }
        let mut flip = || random.below(2) == 0;
        let (biases, upstream) = ([flip(), flip()], [flip(), flip(), kind == Lstm && flip()]);
        let [reverse, ragged, masked] = [flip(), flip(), flip()];
        let lengths = ragged.then(|| (0..b).map(|_| random.below(t + 1)).collect());
        let recurrent_mask =
            masked.then(|| random.strided(&[b, h], dtype).gt_scalar(0.0).to_dtype(dtype).mul_scalar(2.0));
        Case { kind, tensors, biases, upstream, options: SequenceOptions { reverse, lengths, recurrent_mask } }
    }

    /// The same on the card.
    pub fn there(&self) -> Case {
        let mut options = self.options.clone();
        options.recurrent_mask = options.recurrent_mask.as_ref().map(there);
        Case { tensors: self.tensors.iter().map(there).collect(), options, ..*self }
    }

    /// All that the network gives and all gradients, named. A simple network's way back begins with these outputs, if they are given.
    pub fn run(&self, outputs: Option<&Tensor>) -> Vec<(&'static str, Tensor)> {
        let [x, w_ih, w_hh, h0, c0, b_ih, b_hh, hs, h_n, c_n] = <&[Tensor; 10]>::try_from(&self.tensors[..]).unwrap();
        let [b_ih, b_hh] = [(b_ih, 0), (b_hh, 1)].map(|(b, i)| self.biases[i].then_some(b));
        let weights = &RecurrentWeights { w_ih, w_hh, b_ih, b_hh };
        let args = &SequenceArgs { x, weights, h0, options: &self.options_in_accumulator() };
        let [hs, h_n, c_n] = [(hs, 0), (h_n, 1), (c_n, 2)].map(|(g, i)| self.upstream[i].then_some(g));
        let upstream = &SequenceGradients { hs, h_n, c_n };
        let (input, options) = (self.biases[0], &self.options);
        // What every network has, and more.
        let named = |tensors: [Tensor; 5], more: Vec<(&'static str, Tensor)>| -> Vec<_> {
            ["hs", "h_n", "d_h0", "d_w_hh", "d_w_ih"].into_iter().zip(tensors).chain(more).collect()
        };
        let (mut all, d_x) = match self.kind {
            Lstm => {
                let y = lstm(x, weights, h0, c0, options);
                let d = lstm_backward(args, c0, &y, upstream, input).expect("a fused kernel");
                let cell = vec![("c_n", y.c_n), ("cells", y.cells), ("d_c0", d.c0), ("d_bias", d.bias)];
                (named([y.hs, y.h_n, d.h0, d.w_hh, d.w_ih], cell), d.x)
            }
            Gru => {
                let y = gru(x, weights, h0, options);
                let d = gru_backward(args, &y, upstream, input).expect("a fused kernel");
                (named([y.hs, y.h_n, d.h0, d.w_hh, d.w_ih], vec![("d_b_ih", d.b_ih), ("d_b_hh", d.b_hh)]), d.x)
            }
            Rnn(act) => {
                let y = rnn(x, weights, h0, act, options);
                let d = rnn_backward(args, act, outputs.unwrap_or(&y.hs), upstream, input).expect("a fused kernel");
                (named([y.hs, y.h_n, d.h0, d.w_hh, d.w_ih], vec![("d_bias", d.bias)]), d.x)
            }
        };
        assert_eq!(d_x.is_some(), input);
        all.extend(d_x.map(|d_x| ("d_x", d_x)));
        all
    }

    /// As backends get them.
    fn options_in_accumulator(&self) -> SequenceOptions {
        let mut options = self.options.clone();
        let wide = self.tensors[0].dtype().accumulator();
        options.recurrent_mask = options.recurrent_mask.map(|mask| mask.to_dtype(wide));
        options
    }

    /// The card gives what the CPU gives, but for roundings.
    #[track_caller]
    fn check(&self) {
        let [t, b, e] = self.tensors[0].dims_of("test");
        let (h, dtype) = (self.tensors[3].dim(1), self.tensors[0].dtype());
        // The longest sums, whose errors may double at each step.
        let terms = (self.kind.gates() * h + e + t * b) as f64;
        let wide = terms * (1 << t) as f64 * dtype.accumulator().epsilon();
        let what = format!("{:?} T={t} B={b} E={e} H={h} {dtype} {:?}", self.kind, self.options);
        let want = self.run(None);
        // A sum near zero may be rounded to the other side of the ReLU's kink: both ways back are to see the same side.
        let got = self.there().run(Some(&there(&want[0].1)));
        for ((name, got), (_, want)) in got.into_iter().zip(want) {
            assert_eq!((got.shape(), got.dtype()), (want.shape(), want.dtype()), "{what}: {name}");
            assert_eq!(got.device(), cuda(), "{what}: {name}");
            let (got, want) = (got.to_f64_vec(), want.to_f64_vec());
            let size = want.iter().fold(1e-2f64, |size, x| size.max(x.abs()));
            let bound = size * (wide + 4.0 * rounding(dtype));
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                assert!((g - w).abs() <= bound, "{what}: {name}: element {i} is {g}, not {w} ± {bound:e}");
            }
        }
    }
}

/// What else is rounded. To a half type: the results, and on the way to them the input's part of the sums, the states before they are
/// multiplied, and the sums' gradients. To TF32: the operands of products.
fn rounding(dtype: DType) -> f64 {
    match (dtype, matmul_precision()) {
        (DType::F32, MatmulPrecision::Tf32) => 2f64.powi(-10),
        (DType::F32 | DType::F64, _) => 0.0,
        _ => dtype.epsilon(),
    }
}

/// Cases of these sizes, `T B E H`, networks and dtypes.
#[track_caller]
pub fn check_all(seed: u64, shapes: &[[usize; 4]], kinds: &[(Kind, DType)]) {
    let random = &mut Random(seed);
    for &shape in shapes {
        kinds.iter().for_each(|&(kind, dtype)| Case::new(random, kind, shape, dtype).check());
    }
}
