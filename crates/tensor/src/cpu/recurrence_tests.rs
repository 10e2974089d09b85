//! The recurrent kernels against the textbook's equations, and their gradients against central differences.

use super::attention_tests::{Rng, assert_close};
use super::gru::Gru;
use super::lstm::Lstm;
use super::rnn::Rnn;
use super::seq_math::SeqFloat;
use super::through_time::{Gradients, Outputs, Saved, SequenceInput, backward, forward};
use super::{Recurrence, UpstreamGradients};
use crate::ops::rnn::RnnNonlinearity;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Rnn(RnnNonlinearity),
    Gru,
    Lstm,
}

/// What can move, in this order, is an input of the loss: `x` `[T, B, E]`, `[W_hh | W_ih]` `[G·H, H + E]`, the first state
/// and cell `[B, H]`, and a bias for each sum: `[G·H]`, or the GRU's `[4H]`.
const X: usize = 0;
const W: usize = 1;
const H0: usize = 2;
const C0: usize = 3;
const BIAS: usize = 4;

/// `E`
const E: usize = 3;

#[derive(Clone)]
struct Case {
    kind: Kind,
    t: usize,
    b: usize,
    h: usize,
    gates: usize,
    inputs: [Vec<f64>; 5],
    reverse: bool,
    lengths: Option<Vec<usize>>,
    mask: Option<Vec<f64>>,
    /// Of the outputs, the final state and the final cell.
    grads: [Vec<f64>; 3],
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn cast<T: SeqFloat>(x: &[f64]) -> Vec<T> {
    x.iter().map(|&x| T::from(x).unwrap()).collect()
}

impl Case {
    /// `options`: bit 0 reverse, 1 lengths, 2 recurrent mask.
    fn new(kind: Kind, [t, b, h]: [usize; 3], options: u32, seed: u64) -> Self {
        let rng = &mut Rng(seed);
        let gates = match kind {
            Kind::Rnn(_) => 1,
            Kind::Gru => 3,
            Kind::Lstm => 4,
        };
        let (cell, sums) = (if kind == Kind::Lstm { b * h } else { 0 }, if gates == 3 { 4 * h } else { gates * h });
        let sizes = [t * b * E, gates * h * (h + E), b * h, cell, sums];
        Case {
            kind,
            t,
            b,
            h,
            gates,
            inputs: sizes.map(|n| rng.numbers(n)),
            reverse: options & 1 == 1,
            lengths: (options >> 1 & 1 == 1).then(|| (0..b).map(|_| rng.below(t + 1)).collect()),
            mask: (options >> 2 & 1 == 1).then(|| (0..b * h).map(|_| 1.25 * (rng.below(5) > 0) as u8 as f64).collect()),
            grads: [t * b * h, b * h, cell].map(|n| rng.numbers(n)),
        }
    }

    fn recurrence<'a, T>(&'a self, mask: &'a Option<Vec<T>>) -> Recurrence<'a, T> {
        let Case { t, b, h, reverse, .. } = *self;
        Recurrence { t, b, h, reverse, lengths: self.lengths.as_deref(), recurrent_mask: mask.as_deref() }
    }

    /// `[T, B, E]` ↔ `[B, T, E]`, from `rows` of `columns`.
    fn turned<T: Copy>(x: &[T], rows: usize, columns: usize) -> Vec<T> {
        let at = |i: usize| (i % rows * columns + i / rows) * E;
        (0..rows * columns).flat_map(|i| &x[at(i)..at(i) + E]).copied().collect()
    }

    /// `x` is `[T, B, E]`, and backwards in time `[B, T, E]`, for both are read where they lie.
    fn input<'a, T>(&self, x: &'a [T], w: &'a [T], bias: &'a [T]) -> SequenceInput<'a, T> {
        let strides = if self.reverse { [E, self.t * E] } else { [self.b * E, E] };
        SequenceInput { e: E, x, strides, w, bias }
    }
    fn as_input<T: Copy>(&self, x: &[T]) -> Vec<T> {
        if self.reverse { Self::turned(x, self.t, self.b) } else { x.to_vec() }
    }

    /// Outputs, final state, final cell (empty if there is none), activated gates (unless they are not saved), cells.
    fn forward<T: SeqFloat>(&self, save: bool) -> [Vec<T>; 5] {
        let [x, w, h0, c0, bias] = self.inputs.each_ref().map(|x| cast::<T>(x));
        let mask = self.mask.as_ref().map(|m| cast::<T>(m));
        let (seq, x) = (self.recurrence(&mask), self.as_input(&x));
        let (input, states) = (self.input(&x, &w, &bias), (&h0[..], &c0[..]));
        let cells = if c0.is_empty() { 0 } else { self.t * self.b * self.h };
        let sizes = [self.t * self.b * self.h, h0.len(), c0.len(), self.t * self.b * bias.len(), cells];
        let mut made = sizes.map(|n| vec![T::nan(); n]);
        let [hs, h_n, c_n, gates, cells] = &mut made;
        let outputs = Outputs { gates: save.then_some(&mut gates[..]), hs, cells, h_n, c_n };
        match self.kind {
            Kind::Rnn(act) => forward(Rnn(act), &seq, &input, states, outputs),
            Kind::Gru => forward(Gru, &seq, &input, states, outputs),
            Kind::Lstm => forward(Lstm, &seq, &input, states, outputs),
        }
        made
    }

    /// Gradients of the five inputs; empty where the kind has no such input.
    fn backward(&self) -> [Vec<f64>; 5] {
        let [d_hs, d_hn, d_cn] = self.grads.each_ref().map(|g| Some(&g[..]));
        self.backward_from(&UpstreamGradients { d_hs, d_hn, d_cn })
    }

    fn backward_from(&self, upstream: &UpstreamGradients<f64>) -> [Vec<f64>; 5] {
        let [hs, _, _, gates, cells] = self.forward::<f64>(true);
        let [x, w, h0, c0, bias] = &self.inputs;
        let (seq, x) = (self.recurrence(&self.mask), self.as_input(x));
        let input = self.input(&x, w, bias);
        let gates = if self.gates == 1 { &[] } else { &gates[..] };
        let saved = Saved { gates, hs: &hs, cells: &cells, h0, c0 };
        let mut grads = self.inputs.each_ref().map(|x| vec![f64::NAN; x.len()]);
        let [d_x, d_w, d_h0, d_c0, d_bias] = &mut grads;
        let [mut hh, mut ih] = [self.h, E].map(|n| vec![f64::NAN; self.gates * self.h * n]);
        for wanted in [false, true] {
            let d_x = wanted.then_some(&mut d_x[..]);
            let gradients = Gradients { d_x, d_h0, d_c0, d_w_hh: &mut hh, d_w_ih: &mut ih, d_bias };
            match self.kind {
                Kind::Rnn(act) => backward(Rnn(act), &seq, &input, &saved, upstream, gradients),
                Kind::Gru => backward(Gru, &seq, &input, &saved, upstream, gradients),
                Kind::Lstm => backward(Lstm, &seq, &input, &saved, upstream, gradients),
            }
        }
        *d_x = Self::turned(d_x, self.b, self.t);
        *d_w = hh.chunks(self.h).zip(ih.chunks(E)).flat_map(|(h, e)| h.iter().chain(e)).copied().collect();
        grads
    }

    /// The textbook, one row of the batch at a time: outputs, final state, final cell.
    fn textbook(&self) -> [Vec<f64>; 3] {
        let Case { t: steps, b, h, .. } = *self;
        let (mut hs, mut h_n, mut c_n) = (vec![0.0; steps * b * h], self.inputs[H0].clone(), self.inputs[C0].clone());
        for r in 0..b {
            let length = self.lengths.as_ref().map_or(steps, |l| l[r]);
            let mut times: Vec<usize> = (0..length).collect();
            if self.reverse {
                times.reverse();
            }
            for t in times {
                let state = h_n[r * h..][..h].to_vec();
                let weights = |gate: usize, k: usize| &self.inputs[W][(gate * h + k) * (h + E)..][..h + E];
                let bias = |sum: usize, k: usize| self.inputs[BIAS][sum * h + k];
                let x = |gate: usize, k: usize| -> f64 {
                    weights(gate, k)[h..].iter().zip(&self.inputs[X][(t * b + r) * E..]).map(|(w, x)| w * x).sum()
                };
                let w = |gate: usize, k: usize| -> f64 {
                    let masked = |j: usize| state[j] * self.mask.as_ref().map_or(1.0, |m| m[r * h + j]);
                    (0..h).map(|j| weights(gate, k)[j] * masked(j)).sum()
                };
                let both = |gate: usize, k: usize| x(gate, k) + w(gate, k) + bias(gate, k);
                for k in 0..h {
                    let y = match self.kind {
                        Kind::Rnn(RnnNonlinearity::Tanh) => both(0, k).tanh(),
                        Kind::Rnn(RnnNonlinearity::Relu) => both(0, k).max(0.0),
                        Kind::Gru => {
                            let (reset, z) = (sigmoid(both(0, k)), sigmoid(both(1, k)));
                            let n = (x(2, k) + bias(2, k) + reset * (w(2, k) + bias(3, k))).tanh();
                            (1.0 - z) * n + z * state[k]
                        }
                        Kind::Lstm => {
                            let [i, f, o] = [0, 1, 3].map(|gate| sigmoid(both(gate, k)));
                            let c = f * c_n[r * h + k] + i * both(2, k).tanh();
                            c_n[r * h + k] = c;
                            o * c.tanh()
                        }
                    };
                    h_n[r * h + k] = y;
                    hs[(t * b + r) * h + k] = y;
                }
            }
        }
        [hs, h_n, c_n]
    }

    fn loss(&self) -> f64 {
        let outputs = self.textbook();
        outputs.iter().zip(&self.grads).flat_map(|(o, g)| o.iter().zip(g)).map(|(o, g)| o * g).sum()
    }

    fn check(&self) {
        let expected = self.textbook();
        for save in [false, true] {
            let (wide, narrow) = (self.forward::<f64>(save), self.forward::<f32>(save));
            for n in 0..3 {
                assert_close("f64", &wide[n], &expected[n], 1e-12);
                let narrow: Vec<f64> = narrow[n].iter().map(|&x| x as f64).collect();
                // Errors of 2⁻²⁴ in a sum of a few terms, through at most seven steps that may amplify them.
                assert_close("f32", &narrow, &expected[n], 1e-4);
            }
        }
        for (input, grad) in self.backward().iter().enumerate() {
            let (eps, mut kinks) = (1e-5, 0);
            // Every element of the small, a sample of the large.
            for n in (0..grad.len()).step_by(grad.len() / 60 + 1) {
                let side = |sign: f64| {
                    let mut case = self.clone();
                    case.inputs[input][n] += sign * eps;
                    case.loss()
                };
                let (left, here, right) = (side(-1.0), side(0.0), side(1.0));
                let kink = ((right - here) - (here - left)).abs() > 1e-3 * eps;
                if kink && self.kind == Kind::Rnn(RnnNonlinearity::Relu) && kinks < 2 {
                    // A sum so near to zero that max(0, ·) bends between the two sides: there is no one difference.
                    kinks += 1;
                    continue;
                }
                let numeric = (right - left) / (2.0 * eps);
                assert_close(&format!("gradient of input {input}, element {n}"), &[grad[n]], &[numeric], 1e-7);
            }
        }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    let kinds = [Kind::Rnn(RnnNonlinearity::Tanh), Kind::Rnn(RnnNonlinearity::Relu), Kind::Gru, Kind::Lstm];
    (0..kinds.len()).prop_map(move |n| kinds[n])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn small_sequences(kind in kind(), t in 0usize..8, b in 0usize..4, h in 1usize..5, options in 0u32..8, seed: u64) {
        Case::new(kind, [t, b, h], options, seed).check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    /// Batches of more than one piece.
    #[test]
    fn large_batches(kind in kind(), t in 1usize..6, b in 17usize..40, h in 1usize..4, options in 0u32..8, seed: u64) {
        Case::new(kind, [t, b, h], options, seed).check();
    }
}

#[test]
fn no_upstream_gradient_is_zero() {
    let case = Case { grads: [vec![0.0; 24], vec![0.0; 8], vec![0.0; 8]], ..Case::new(Kind::Lstm, [3, 2, 4], 0, 1) };
    assert!(case.backward().iter().flatten().all(|&x| x == 0.0));
    let none = UpstreamGradients { d_hs: None, d_hn: None, d_cn: None };
    assert!(case.backward_from(&none).iter().flatten().all(|&x| x == 0.0));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for kind in [Kind::Rnn(RnnNonlinearity::Tanh), Kind::Gru, Kind::Lstm] {
        let case = Case::new(kind, [9, 50, 8], 7, 3);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| (case.forward::<f64>(false)[..3].to_vec(), case.backward()))
        };
        assert_eq!(with(1), with(3));
    }
}
