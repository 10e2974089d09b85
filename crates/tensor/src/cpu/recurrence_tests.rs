//! The recurrent kernels against the textbook's equations, and their gradients against central differences.

use super::attention_tests::{Rng, assert_close};
use super::gru::{GruGradients, GruSaved, gru_backward, gru_forward};
use super::lstm::{LstmGradients, LstmInput, LstmSaved, lstm_backward, lstm_forward};
use super::rnn::{RnnActivation, RnnGradients, rnn_backward, rnn_forward};
use super::seq_math::SeqFloat;
use super::{Recurrence, UpstreamGradients};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Rnn(RnnActivation),
    Gru,
    Lstm,
}

/// What can move, in this order, is an input of the loss: the gates' inputs `[T, B, G·H]`, `W_hh` `[G·H, H]`, the first
/// state and cell `[B, H]`, and the GRU's bias of the candidate `[H]`. The LSTM, which makes its gates' inputs itself, has
/// `x` `[T, B, E]`, `[W_hh | W_ih]` `[4H, H + E]` and a bias `[4H]` in their places.
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
        let sizes = match kind {
            Kind::Lstm => [t * b * E, 4 * h * (h + E), b * h, b * h, 4 * h],
            _ => [t * b * gates * h, gates * h * h, b * h, b * h, h],
        };
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
            grads: [t * b * h, b * h, b * h].map(|n| rng.numbers(n)),
        }
    }

    fn recurrence<'a, T>(&'a self, w_hh: &'a [T], mask: &'a Option<Vec<T>>) -> Recurrence<'a, T> {
        let Case { t, b, h, reverse, .. } = *self;
        Recurrence { t, b, h, w_hh, reverse, lengths: self.lengths.as_deref(), recurrent_mask: mask.as_deref() }
    }

    /// `W_hh`: of the LSTM's weights the left columns.
    fn w_hh<T: Copy>(&self, w: &[T]) -> Vec<T> {
        match self.kind {
            Kind::Lstm => w.chunks(self.h + E).flat_map(|row| &row[..self.h]).copied().collect(),
            _ => w.to_vec(),
        }
    }

    /// `[T, B, E]` ↔ `[B, T, E]`, from `rows` of `columns`.
    fn turned<T: Copy>(x: &[T], rows: usize, columns: usize) -> Vec<T> {
        let at = |i: usize| (i % rows * columns + i / rows) * E;
        (0..rows * columns).flat_map(|i| &x[at(i)..at(i) + E]).copied().collect()
    }

    /// The LSTM's input: `x` is `[T, B, E]`, and backwards in time `[B, T, E]`, for both are read where they lie.
    fn input<'a, T>(&self, x: &'a [T], w: &'a [T], bias: &'a [T]) -> LstmInput<'a, T> {
        let strides = if self.reverse { [E, self.t * E] } else { [self.b * E, E] };
        LstmInput { e: E, x, strides, w, bias }
    }
    fn as_input<T: Copy>(&self, x: &[T]) -> Vec<T> {
        if self.reverse && self.kind == Kind::Lstm { Self::turned(x, self.t, self.b) } else { x.to_vec() }
    }

    /// Outputs, final state, final cell (empty if there is none); activated gates, cells or `hn`.
    fn forward<T: SeqFloat>(&self, save: bool) -> [Vec<T>; 5] {
        let [x, w, h0, c0, bias] = self.inputs.each_ref().map(|x| cast::<T>(x));
        let mask = self.mask.as_ref().map(|m| cast::<T>(m));
        let w_hh = self.w_hh(&w);
        let seq = self.recurrence(&w_hh, &mask);
        let n = self.t * self.b * self.h;
        let [mut hs, mut extra] = [n, if save || self.kind == Kind::Lstm { n } else { 0 }].map(|n| vec![T::nan(); n]);
        let [mut h_n, mut c_n] = [self.b * self.h; 2].map(|n| vec![T::nan(); n]);
        let mut gates = x;
        let saved = save.then_some(&mut extra[..]);
        match self.kind {
            Kind::Rnn(act) => {
                rnn_forward(&seq, act, &mut gates, &h0, &mut h_n);
                hs.copy_from_slice(&gates);
                c_n.clear();
            }
            Kind::Gru => {
                gru_forward(&seq, &mut gates, Some(&bias), &h0, &mut hs, saved, &mut h_n);
                c_n.clear();
            }
            Kind::Lstm => {
                let x = self.as_input(&gates);
                gates = vec![T::nan(); 4 * n];
                let input = self.input(&x, &w, &bias);
                lstm_forward(&seq, &input, &mut gates, (&h0, &c0), &mut hs, &mut extra, (&mut h_n, &mut c_n));
            }
        }
        [hs, h_n, c_n, gates, extra]
    }

    /// Gradients of the five inputs; empty where the kind has no such input.
    fn backward(&self) -> [Vec<f64>; 5] {
        let [hs, _, _, gates, extra] = self.forward::<f64>(true);
        let [x, w, h0, c0, bias] = &self.inputs;
        let (x, w_hh) = (self.as_input(x), self.w_hh(w));
        let seq = self.recurrence(&w_hh, &self.mask);
        let [d_hs, d_hn, d_cn] = self.grads.each_ref().map(|g| Some(&g[..]));
        let upstream = UpstreamGradients { d_hs, d_hn, d_cn };
        let mut grads = self.inputs.each_ref().map(|x| vec![f64::NAN; x.len()]);
        let [d_gx, d_w_hh, d_h0, d_c0, d_bias] = &mut grads;
        match self.kind {
            Kind::Rnn(act) => {
                rnn_backward(&seq, act, &hs, h0, &upstream, RnnGradients { d_gx, d_h0, d_w_hh });
                d_c0.clear();
                d_bias.clear();
            }
            Kind::Gru => {
                let saved = GruSaved { gates: &gates, hn: &extra, hs: &hs, h0 };
                gru_backward(&seq, &saved, &upstream, GruGradients { d_gx, d_h0, d_w_hh, d_b_hn: Some(d_bias) });
                d_c0.clear();
            }
            Kind::Lstm => {
                let saved = LstmSaved { gates: &gates, cells: &extra, hs: &hs, h0, c0 };
                let [mut hh, mut ih] = [self.h, E].map(|n| vec![f64::NAN; 4 * self.h * n]);
                let mut d_x = vec![f64::NAN; self.t * self.b * E];
                for wanted in [false, true] {
                    let d_x = wanted.then_some(&mut d_x[..]);
                    let gradients = LstmGradients { d_x, d_h0, d_c0, d_w_hh: &mut hh, d_w_ih: &mut ih, d_bias };
                    lstm_backward(&seq, &self.input(&x, w, bias), &saved, &upstream, gradients);
                }
                *d_gx = Self::turned(&d_x, self.b, self.t);
                *d_w_hh = hh.chunks(self.h).zip(ih.chunks(E)).flat_map(|(h, e)| h.iter().chain(e)).copied().collect();
            }
        }
        grads
    }

    /// The textbook, one row of the batch at a time: outputs, final state, final cell.
    fn textbook(&self) -> [Vec<f64>; 3] {
        let Case { t: steps, b, h, gates, .. } = *self;
        let (mut hs, mut h_n, mut c_n) = (vec![0.0; steps * b * h], self.inputs[H0].clone(), self.inputs[C0].clone());
        for r in 0..b {
            let length = self.lengths.as_ref().map_or(steps, |l| l[r]);
            let mut times: Vec<usize> = (0..length).collect();
            if self.reverse {
                times.reverse();
            }
            for t in times {
                let (state, cell) = (h_n[r * h..][..h].to_vec(), c_n[r * h..][..h].to_vec());
                let width = if self.kind == Kind::Lstm { h + E } else { h };
                let weights = |gate: usize, k: usize| &self.inputs[W][(gate * h + k) * width..][..width];
                let x = |gate: usize, k: usize| match self.kind {
                    Kind::Lstm => {
                        let terms = weights(gate, k)[h..].iter().zip(&self.inputs[X][(t * b + r) * E..]);
                        self.inputs[BIAS][gate * h + k] + terms.map(|(w, x)| w * x).sum::<f64>()
                    }
                    _ => self.inputs[X][(t * b + r) * gates * h + gate * h + k],
                };
                let w = |gate: usize, k: usize| -> f64 {
                    let masked = |j: usize| state[j] * self.mask.as_ref().map_or(1.0, |m| m[r * h + j]);
                    (0..h).map(|j| weights(gate, k)[j] * masked(j)).sum()
                };
                for k in 0..h {
                    let y = match self.kind {
                        Kind::Rnn(RnnActivation::Tanh) => (x(0, k) + w(0, k)).tanh(),
                        Kind::Rnn(RnnActivation::Relu) => (x(0, k) + w(0, k)).max(0.0),
                        Kind::Gru => {
                            let (reset, z) = (sigmoid(x(0, k) + w(0, k)), sigmoid(x(1, k) + w(1, k)));
                            let n = (x(2, k) + reset * (w(2, k) + self.inputs[BIAS][k])).tanh();
                            (1.0 - z) * n + z * state[k]
                        }
                        Kind::Lstm => {
                            let [i, f, o] = [0, 1, 3].map(|gate| sigmoid(x(gate, k) + w(gate, k)));
                            let c = f * cell[k] + i * (x(2, k) + w(2, k)).tanh();
                            c_n[r * h + k] = c;
                            o * c.tanh()
                        }
                    };
                    h_n[r * h + k] = y;
                    hs[(t * b + r) * h + k] = y;
                }
            }
        }
        if self.kind != Kind::Lstm {
            c_n.clear();
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
            let eps = 1e-5;
            // Every element of the small, a sample of the large.
            for n in (0..grad.len()).step_by(grad.len() / 60 + 1) {
                let side = |sign: f64| {
                    let mut case = self.clone();
                    case.inputs[input][n] += sign * eps;
                    case.loss()
                };
                let (left, here, right) = (side(-1.0), side(0.0), side(1.0));
                let kink = ((right - here) - (here - left)).abs() > 1e-3 * eps;
                if kink && self.kind == Kind::Rnn(RnnActivation::Relu) {
                    // A sum so near to zero that max(0, ·) bends between the two sides: there is no one difference.
                    continue;
                }
                let numeric = (right - left) / (2.0 * eps);
                assert_close(&format!("gradient of input {input}, element {n}"), &[grad[n]], &[numeric], 1e-7);
            }
        }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    let kinds = [Kind::Rnn(RnnActivation::Tanh), Kind::Rnn(RnnActivation::Relu), Kind::Gru, Kind::Lstm];
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
    let [hs, _, _, gates, cells] = case.forward::<f64>(true);
    let ([x, w, h0, c0, bias], w_hh) = (&case.inputs, case.w_hh(&case.inputs[W]));
    let mut grads = [24, 8, 8, 64, 48, 16].map(|n| vec![f64::NAN; n]);
    let [_, d_h0, d_c0, d_w_hh, d_w_ih, d_bias] = &mut grads;
    let saved = LstmSaved { gates: &gates, cells: &cells, hs: &hs, h0, c0 };
    let gradients = LstmGradients { d_x: None, d_h0, d_c0, d_w_hh, d_w_ih, d_bias };
    let (seq, input) = (case.recurrence(&w_hh, &None), case.input(x, w, bias));
    lstm_backward(&seq, &input, &saved, &UpstreamGradients::default(), gradients);
    assert!(grads[1..].iter().flatten().all(|&x| x == 0.0));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for kind in [Kind::Rnn(RnnActivation::Tanh), Kind::Gru, Kind::Lstm] {
        let case = Case::new(kind, [9, 50, 8], 7, 3);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| (case.forward::<f64>(false)[..3].to_vec(), case.backward()))
        };
        assert_eq!(with(1), with(3));
    }
}
