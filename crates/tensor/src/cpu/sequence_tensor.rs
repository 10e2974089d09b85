//! The recurrent ops on tensors: dtypes and strides on top of the slice kernels.

use super::gru::{GruGradients as GruSlices, GruSaved, gru_backward, gru_forward};
use super::lstm::{LstmGradients as LstmSlices, LstmInput, LstmSaved, lstm_backward, lstm_forward};
use super::rnn::{RnnActivation, RnnGradients as RnnSlices, rnn_backward, rnn_forward};
use super::{Recurrence, SeqFloat, UpstreamGradients};
use crate::dtype::Element;
use crate::ops::gru::{GruGradients, GruOutput};
use crate::ops::lstm::{LstmArgs, LstmGradients, LstmOutput};
use crate::ops::recurrence::{RecurrentWeights, SequenceGradients, SequenceOptions, sum_of};
use crate::ops::rnn::{RnnGradients, RnnNonlinearity, RnnOutput};
use crate::storage::CpuBuffer;
use crate::{DType, Shape, Tensor};

/// A tensor's elements in a kernel's form: row-major, in the type that it computes in.
struct Dense(Tensor);
impl Dense {
    fn new<T: Element>(x: &Tensor) -> Dense {
        Dense(x.to_dtype(T::DTYPE).contiguous())
    }
    fn slice<T: SeqFloat>(&self) -> &[T] {
        self.0.contiguous_slice()
    }
}

fn dense<T: Element>(x: Option<&Tensor>) -> Option<Dense> {
    x.map(Dense::new::<T>)
}

/// `gx` in the type to compute in, to write over: its own memory where nobody else holds it.
fn taken<T: Element>(gx: &mut Tensor) -> Tensor {
    let own = std::mem::replace(gx, Tensor::zeros(0));
    // A cast makes new memory; without one this is the only holder of the old.
    let mut own = if own.dtype() == T::DTYPE { own } else { own.to_dtype(T::DTYPE) };
    own.make_unique();
    own
}

/// The elements of a tensor that [`taken`] made.
fn elements<T: SeqFloat>(x: &mut Tensor) -> &mut [T] {
    x.unique_slice_mut().expect("made unique")
}

/// Calls `f` with the sizes, the weights and the options in the kernels' form.
fn with_sequence<T: SeqFloat + Element, R>(
    steps: usize,
    w_hh: &Tensor,
    h0: &Tensor,
    options: &SequenceOptions,
    f: impl FnOnce(&Recurrence<T>) -> R,
) -> R {
    let [b, h] = h0.dims_of("sequence");
    let (w_hh, mask) = (Dense::new::<T>(w_hh), dense::<T>(options.recurrent_mask.as_ref()));
    f(&Recurrence {
        t: steps,
        b,
        h,
        w_hh: w_hh.slice(),
        reverse: options.reverse,
        lengths: options.lengths.as_deref(),
        recurrent_mask: mask.as_ref().map(Dense::slice),
    })
}

/// Calls `f` with the incoming gradients in the kernels' form.
fn with_upstream<T: SeqFloat + Element, R>(
    gradients: &SequenceGradients,
    f: impl FnOnce(&UpstreamGradients<T>) -> R,
) -> R {
    let [hs, h_n, c_n] = [gradients.hs, gradients.h_n, gradients.c_n].map(dense::<T>);
    let [d_hs, d_hn, d_cn] = [&hs, &h_n, &c_n].map(|g| g.as_ref().map(Dense::slice));
    f(&UpstreamGradients { d_hs, d_hn, d_cn })
}

/// `buffer` as a tensor of `shape`, which a kernel has filled with `T`s.
fn tensor<T: Element>(buffer: CpuBuffer, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_cpu(buffer, shape, T::DTYPE)
}

macro_rules! compute_in {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::F64 => {
                type $T = f64;
                $body
            }
            _ => {
                type $T = f32;
                $body
            }
        }
    };
}

/// An LSTM's input and weights in the kernel's form.
struct LstmOperands {
    x: Tensor,
    w: Tensor,
    bias: Tensor,
}
impl LstmOperands {
    fn new<T: Element>(x: &Tensor, weights: &RecurrentWeights<Tensor>) -> LstmOperands {
        let mut x = x.to_dtype(T::DTYPE);
        // Read where it lies, `[B, T, E]` or `[T, B, E]`, if its rows' elements are neighbours.
        let [steps, rows, next] = [0, 1, 2].map(|d| x.layout().strides[d]);
        if x.numel() == 0 || next != 1 || steps < 0 || rows < 0 {
            x = x.contiguous();
        }
        let w = Tensor::cat(&[weights.w_hh, weights.w_ih], 1).to_dtype(T::DTYPE).contiguous();
        let [b_ih, b_hh] = [weights.b_ih, weights.b_hh].map(|b| b.map(|b| b.to_dtype(T::DTYPE)));
        let bias = match sum_of(b_ih.as_ref(), b_hh.as_ref()) {
            Some(bias) => bias.contiguous(),
            None => Tensor::full_on([w.dim(0)], 0.0, T::DTYPE, &x.device()).contiguous(),
        };
        LstmOperands { x, w, bias }
    }
    fn input<T: SeqFloat>(&self) -> LstmInput<'_, T> {
        let (layout, x) = (self.x.layout(), self.x.storage::<T>());
        // Without elements, strides mean nothing.
        let some = self.x.numel() > 0;
        LstmInput {
            e: self.x.dim(2),
            x: if some { &x[layout.offset..] } else { &[] },
            strides: [0, 1].map(|d| if some { layout.strides[d] as usize } else { 0 }),
            w: self.w.contiguous_slice(),
            bias: self.bias.contiguous_slice(),
        }
    }
}

/// See [`lstm_forward`].
pub fn lstm(args: &LstmArgs) -> LstmOutput {
    compute_in!(args.x.dtype(), T => lstm_as::<T>(args))
}

fn lstm_as<T: SeqFloat + Element>(args: &LstmArgs) -> LstmOutput {
    let LstmArgs { x, weights, h0, c0, options } = *args;
    let ([t, b, _], h) = (x.dims_of("lstm"), h0.dim(1));
    let [mut hs, mut cells] = [(); 2].map(|()| CpuBuffer::scratch::<T>(t * b * h));
    let mut gates = CpuBuffer::scratch::<T>(t * b * 4 * h);
    let [mut h_n, mut c_n] = [(); 2].map(|()| CpuBuffer::scratch::<T>(b * h));
    let (first, cell) = (Dense::new::<T>(h0), Dense::new::<T>(c0));
    let operands = LstmOperands::new::<T>(x, weights);
    with_sequence::<T, _>(t, weights.w_hh, h0, options, |seq| {
        lstm_forward(
            seq,
            &operands.input(),
            gates.as_mut_slice(),
            (first.slice(), cell.slice()),
            hs.as_mut_slice(),
            cells.as_mut_slice(),
            (h_n.as_mut_slice(), c_n.as_mut_slice()),
        )
    });
    let [h_n, c_n] = [h_n, c_n].map(|state| tensor::<T>(state, [b, h]).to_dtype(x.dtype()));
    LstmOutput {
        hs: tensor::<T>(hs, [t, b, h]).to_dtype(x.dtype()),
        h_n,
        c_n,
        gates: tensor::<T>(gates, [t, b, 4 * h]),
        cells: tensor::<T>(cells, [t, b, h]),
    }
}

/// See [`lstm_backward`].
pub fn lstm_gradients(
    args: &LstmArgs,
    saved: &LstmOutput,
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> LstmGradients {
    compute_in!(args.x.dtype(), T => lstm_gradients_as::<T>(args, saved, gradients, input_gradient))
}

fn lstm_gradients_as<T: SeqFloat + Element>(
    args: &LstmArgs,
    saved: &LstmOutput,
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> LstmGradients {
    let LstmArgs { x, weights, h0, c0, options } = *args;
    let ([t, b, e], h) = (x.dims_of("lstm"), h0.dim(1));
    let [gates, cells, hs] = [&saved.gates, &saved.cells, &saved.hs].map(Dense::new::<T>);
    let (first, cell) = (Dense::new::<T>(h0), Dense::new::<T>(c0));
    let operands = LstmOperands::new::<T>(x, weights);
    let mut d_x = input_gradient.then(|| CpuBuffer::scratch::<T>(t * b * e));
    let [mut d_h0, mut d_c0] = [(); 2].map(|()| CpuBuffer::scratch::<T>(b * h));
    let [mut d_w_hh, mut d_w_ih, mut d_bias] = [h, e, 1].map(|n| CpuBuffer::scratch::<T>(4 * h * n));
    with_sequence::<T, _>(t, weights.w_hh, h0, options, |seq| {
        with_upstream::<T, _>(gradients, |upstream| {
            let saved = LstmSaved {
                gates: gates.slice(),
                cells: cells.slice(),
                hs: hs.slice(),
                h0: first.slice(),
                c0: cell.slice(),
            };
            let gradients = LstmSlices {
                d_x: d_x.as_mut().map(CpuBuffer::as_mut_slice),
                d_h0: d_h0.as_mut_slice(),
                d_c0: d_c0.as_mut_slice(),
                d_w_hh: d_w_hh.as_mut_slice(),
                d_w_ih: d_w_ih.as_mut_slice(),
                d_bias: d_bias.as_mut_slice(),
            };
            lstm_backward(seq, &operands.input(), &saved, upstream, gradients)
        })
    });
    let finish = |buffer: CpuBuffer, shape: Shape| tensor::<T>(buffer, shape).to_dtype(x.dtype());
    LstmGradients {
        x: d_x.map(|d_x| finish(d_x, [b, t, e].into()).transpose(0, 1)),
        h0: finish(d_h0, [b, h].into()),
        c0: finish(d_c0, [b, h].into()),
        w_hh: finish(d_w_hh, [4 * h, h].into()),
        w_ih: finish(d_w_ih, [4 * h, e].into()),
        bias: finish(d_bias, [4 * h].into()),
    }
}

/// See [`gru_forward`].
pub fn gru(gx: &mut Tensor, w_hh: &Tensor, b_hn: Option<&Tensor>, h0: &Tensor, options: &SequenceOptions) -> GruOutput {
    compute_in!(gx.dtype(), T => gru_as::<T>(gx, w_hh, b_hn, h0, options))
}

fn gru_as<T: SeqFloat + Element>(
    gx: &mut Tensor,
    w_hh: &Tensor,
    b_hn: Option<&Tensor>,
    h0: &Tensor,
    options: &SequenceOptions,
) -> GruOutput {
    let [t, b, _]: [usize; 3] = gx.dims_of("gru");
    let h = h0.dim(1);
    let dtype = gx.dtype();
    let mut gates = taken::<T>(gx);
    let [mut hs, mut hn] = [(); 2].map(|()| CpuBuffer::scratch::<T>(t * b * h));
    let mut h_n = CpuBuffer::scratch::<T>(b * h);
    let (first, b_hn) = (Dense::new::<T>(h0), dense::<T>(b_hn));
    with_sequence::<T, _>(t, w_hh, h0, options, |seq| {
        gru_forward(
            seq,
            elements(&mut gates),
            b_hn.as_ref().map(Dense::slice),
            first.slice(),
            hs.as_mut_slice(),
            Some(hn.as_mut_slice()),
            h_n.as_mut_slice(),
        )
    });
    GruOutput {
        hs: tensor::<T>(hs, [t, b, h]).to_dtype(dtype),
        h_n: tensor::<T>(h_n, [b, h]).to_dtype(dtype),
        gates,
        hn: tensor::<T>(hn, [t, b, h]),
    }
}

/// See [`gru_backward`].
pub fn gru_gradients(
    w_hh: &Tensor,
    h0: &Tensor,
    options: &SequenceOptions,
    saved: &GruOutput,
    gradients: &SequenceGradients,
) -> GruGradients {
    compute_in!(w_hh.dtype(), T => gru_gradients_as::<T>(w_hh, h0, options, saved, gradients))
}

fn gru_gradients_as<T: SeqFloat + Element>(
    w_hh: &Tensor,
    h0: &Tensor,
    options: &SequenceOptions,
    saved: &GruOutput,
    gradients: &SequenceGradients,
) -> GruGradients {
    let [t, b, h]: [usize; 3] = saved.hs.dims_of("gru");
    let [gates, hn, hs, first] = [&saved.gates, &saved.hn, &saved.hs, h0].map(Dense::new::<T>);
    let mut d_gx = CpuBuffer::scratch::<T>(t * b * 3 * h);
    let (mut d_h0, mut d_b_hn) = (CpuBuffer::scratch::<T>(b * h), CpuBuffer::scratch::<T>(h));
    let mut d_w_hh = CpuBuffer::scratch::<T>(w_hh.numel());
    with_sequence::<T, _>(t, w_hh, h0, options, |seq| {
        with_upstream::<T, _>(gradients, |upstream| {
            let saved = GruSaved { gates: gates.slice(), hn: hn.slice(), hs: hs.slice(), h0: first.slice() };
            let gradients = GruSlices {
                d_gx: d_gx.as_mut_slice(),
                d_h0: d_h0.as_mut_slice(),
                d_w_hh: d_w_hh.as_mut_slice(),
                d_b_hn: Some(d_b_hn.as_mut_slice()),
            };
            gru_backward(seq, &saved, upstream, gradients)
        })
    });
    let finish = |buffer: CpuBuffer, shape: Shape| tensor::<T>(buffer, shape).to_dtype(w_hh.dtype());
    GruGradients {
        gates: finish(d_gx, [t, b, 3 * h].into()),
        h0: finish(d_h0, [b, h].into()),
        w_hh: finish(d_w_hh, w_hh.shape().clone()),
        b_hn: finish(d_b_hn, h.into()),
    }
}

fn activation(nonlinearity: RnnNonlinearity) -> RnnActivation {
    match nonlinearity {
        RnnNonlinearity::Tanh => RnnActivation::Tanh,
        RnnNonlinearity::Relu => RnnActivation::Relu,
    }
}

/// See [`rnn_forward`].
pub fn rnn(
    gx: &mut Tensor,
    w_hh: &Tensor,
    h0: &Tensor,
    nonlinearity: RnnNonlinearity,
    options: &SequenceOptions,
) -> RnnOutput {
    compute_in!(gx.dtype(), T => rnn_as::<T>(gx, w_hh, h0, activation(nonlinearity), options))
}

fn rnn_as<T: SeqFloat + Element>(
    gx: &mut Tensor,
    w_hh: &Tensor,
    h0: &Tensor,
    act: RnnActivation,
    options: &SequenceOptions,
) -> RnnOutput {
    let [t, b, h]: [usize; 3] = gx.dims_of("rnn");
    let dtype = gx.dtype();
    let (mut hs, mut h_n) = (taken::<T>(gx), CpuBuffer::scratch::<T>(b * h));
    let first = Dense::new::<T>(h0);
    with_sequence::<T, _>(t, w_hh, h0, options, |seq| {
        rnn_forward(seq, act, elements(&mut hs), first.slice(), h_n.as_mut_slice())
    });
    RnnOutput { hs: hs.to_dtype(dtype), h_n: tensor::<T>(h_n, [b, h]).to_dtype(dtype) }
}

/// See [`rnn_backward`].
pub fn rnn_gradients(
    w_hh: &Tensor,
    h0: &Tensor,
    nonlinearity: RnnNonlinearity,
    options: &SequenceOptions,
    hs: &Tensor,
    gradients: &SequenceGradients,
) -> RnnGradients {
    compute_in!(w_hh.dtype(), T => rnn_gradients_as::<T>(w_hh, h0, activation(nonlinearity), options, hs, gradients))
}

fn rnn_gradients_as<T: SeqFloat + Element>(
    w_hh: &Tensor,
    h0: &Tensor,
    act: RnnActivation,
    options: &SequenceOptions,
    hs: &Tensor,
    gradients: &SequenceGradients,
) -> RnnGradients {
    let [t, b, h]: [usize; 3] = hs.dims_of("rnn");
    let [dense_hs, first] = [hs, h0].map(Dense::new::<T>);
    let (mut d_gx, mut d_h0) = (CpuBuffer::scratch::<T>(t * b * h), CpuBuffer::scratch::<T>(b * h));
    let mut d_w_hh = CpuBuffer::scratch::<T>(w_hh.numel());
    with_sequence::<T, _>(t, w_hh, h0, options, |seq| {
        with_upstream::<T, _>(gradients, |upstream| {
            let gradients =
                RnnSlices { d_gx: d_gx.as_mut_slice(), d_h0: d_h0.as_mut_slice(), d_w_hh: d_w_hh.as_mut_slice() };
            rnn_backward(seq, act, dense_hs.slice(), first.slice(), upstream, gradients)
        })
    });
    let finish = |buffer: CpuBuffer, shape: Shape| tensor::<T>(buffer, shape).to_dtype(w_hh.dtype());
    RnnGradients {
        gates: finish(d_gx, [t, b, h].into()),
        h0: finish(d_h0, [b, h].into()),
        w_hh: finish(d_w_hh, w_hh.shape().clone()),
    }
}
