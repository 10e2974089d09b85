//! The recurrent ops on tensors: dtypes and strides on top of the slice kernels.

use super::gru::Gru;
use super::lstm::Lstm;
use super::rnn::Rnn;
use super::through_time::{Cell, Gradients, Outputs, Saved, SequenceInput, backward, forward};
use super::{Recurrence, SeqFloat, UpstreamGradients};
use crate::dtype::Element;
use crate::ops::gru::{GruGradients, GruOutput};
use crate::ops::lstm::{LstmGradients, LstmOutput};
use crate::ops::recurrence::{RecurrentWeights, SequenceArgs, SequenceGradients, SequenceOptions, sum_of};
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

/// The elements, none if there is no tensor.
fn slice<T: SeqFloat>(x: &Option<Dense>) -> &[T] {
    x.as_ref().map_or(&[], Dense::slice)
}

/// Calls `f` with the sizes and the options in the kernels' form.
fn with_sequence<T: SeqFloat + Element, R>(
    steps: usize,
    h0: &Tensor,
    options: &SequenceOptions,
    f: impl FnOnce(&Recurrence<T>) -> R,
) -> R {
    let [b, h] = h0.dims_of("sequence");
    let mask = dense::<T>(options.recurrent_mask.as_ref());
    f(&Recurrence {
        t: steps,
        b,
        h,
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

/// The input and the weights in the kernels' form.
struct Operands {
    x: Tensor,
    w: Tensor,
    bias: Tensor,
}
impl Operands {
    /// `bias` is made of `b_ih` and `b_hh`, in the type to compute in.
    fn new<T: Element>(x: &Tensor, weights: &RecurrentWeights<Tensor>, bias: Biases, sums: usize) -> Operands {
        let mut x = x.to_dtype(T::DTYPE);
        // Read where it lies, `[B, T, E]` or `[T, B, E]`, if its rows' elements are neighbours.
        let [steps, rows, next] = [0, 1, 2].map(|d| x.layout().strides[d]);
        if x.numel() == 0 || next != 1 || steps < 0 || rows < 0 {
            x = x.contiguous();
        }
        let w = Tensor::cat(&[weights.w_hh, weights.w_ih], 1).to_dtype(T::DTYPE).contiguous();
        let [b_ih, b_hh] = [weights.b_ih, weights.b_hh].map(|b| b.map(|b| b.to_dtype(T::DTYPE)));
        let bias = bias(b_ih.as_ref(), b_hh.as_ref());
        let bias = bias.unwrap_or_else(|| Tensor::full_on([sums], 0.0, T::DTYPE, &x.device())).contiguous();
        Operands { x, w, bias }
    }
    fn input<T: SeqFloat>(&self) -> SequenceInput<'_, T> {
        let (layout, x) = (self.x.layout(), self.x.storage::<T>());
        // Without elements, strides mean nothing.
        let some = self.x.numel() > 0;
        SequenceInput {
            e: self.x.dim(2),
            x: if some { &x[layout.offset..] } else { &[] },
            strides: [0, 1].map(|d| if some { layout.strides[d] as usize } else { 0 }),
            w: self.w.contiguous_slice(),
            bias: self.bias.contiguous_slice(),
        }
    }
}

/// The biases of a [`Gru`]: the sums of those of `r` and `z`, and both of `n`.
fn half_added(b_ih: Option<&Tensor>, b_hh: Option<&Tensor>) -> Option<Tensor> {
    let zeros = b_ih.or(b_hh)?.zeros_like();
    let (x, y) = (b_ih.unwrap_or(&zeros), b_hh.unwrap_or(&zeros));
    let h = zeros.dim(0) / 3;
    let [n_ih, n_hh] = [x, y].map(|b| b.narrow(0, 2 * h, h));
    Some(Tensor::cat(&[&x.narrow(0, 0, 2 * h).add(&y.narrow(0, 0, 2 * h)), &n_ih, &n_hh], 0))
}

/// How the biases of a sum's two products become one: they are added up ([`sum_of`]), or as in [`half_added`].
type Biases = fn(Option<&Tensor>, Option<&Tensor>) -> Option<Tensor>;

/// What [`forward`] made.
struct Results {
    hs: Tensor,
    h_n: Tensor,
    c_n: Tensor,
    gates: Tensor,
    cells: Tensor,
}

/// A network from `h0` and, if it has a cell, `c0` on. The results are in the input's dtype, what is for the backward pass
/// alone (the gates, if it needs them, and the cells) in that of the computation.
fn run<T: SeqFloat + Element, C: Cell<T>>(
    network: C,
    args: &SequenceArgs,
    c0: Option<&Tensor>,
    bias: Biases,
    save_gates: bool,
) -> Results {
    let SequenceArgs { x, weights, h0, options } = *args;
    let ([t, b, _], h) = (x.dims_of("sequence"), h0.dim(1));
    let (c, sums) = (if C::CELL { h } else { 0 }, C::SUMS * h);
    let [mut hs, mut cells] = [h, c].map(|width| CpuBuffer::scratch::<T>(t * b * width));
    let mut gates = CpuBuffer::scratch::<T>(if save_gates { t * b * sums } else { 0 });
    let [mut h_n, mut c_n] = [h, c].map(|width| CpuBuffer::scratch::<T>(b * width));
    let (first, cell) = (Dense::new::<T>(h0), dense::<T>(c0));
    let operands = Operands::new::<T>(x, weights, bias, sums);
    with_sequence::<T, _>(t, h0, options, |seq| {
        let outputs = Outputs {
            gates: save_gates.then(|| gates.as_mut_slice()),
            hs: hs.as_mut_slice(),
            cells: cells.as_mut_slice(),
            h_n: h_n.as_mut_slice(),
            c_n: c_n.as_mut_slice(),
        };
        forward(network, seq, &operands.input(), (first.slice(), slice(&cell)), outputs)
    });
    let saved = |buffer, width| tensor::<T>(buffer, [t, b, width]);
    Results {
        hs: saved(hs, h).to_dtype(x.dtype()),
        h_n: tensor::<T>(h_n, [b, h]).to_dtype(x.dtype()),
        c_n: tensor::<T>(c_n, [b, c]).to_dtype(x.dtype()),
        gates: saved(gates, if save_gates { sums } else { 0 }),
        cells: saved(cells, c),
    }
}

/// What [`backward`] made.
struct Found {
    x: Option<Tensor>,
    h0: Tensor,
    c0: Tensor,
    w_hh: Tensor,
    w_ih: Tensor,
    bias: Tensor,
}

/// The gradients of [`run`], from its outputs, and the gates and cells that it saved.
fn differentiate<T: SeqFloat + Element, C: Cell<T>>(
    network: C,
    args: &SequenceArgs,
    c0: Option<&Tensor>,
    bias: Biases,
    (hs, gates, cells): (&Tensor, Option<&Tensor>, Option<&Tensor>),
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> Found {
    let SequenceArgs { x, weights, h0, options } = *args;
    let ([t, b, e], h) = (x.dims_of("sequence"), h0.dim(1));
    let (c, rows, sums) = (if C::CELL { h } else { 0 }, C::GATES * h, C::SUMS * h);
    let [hs, first] = [hs, h0].map(Dense::new::<T>);
    let [gates, cells, cell] = [gates, cells, c0].map(dense::<T>);
    let operands = Operands::new::<T>(x, weights, bias, sums);
    let mut d_x = input_gradient.then(|| CpuBuffer::scratch::<T>(t * b * e));
    let [mut d_h0, mut d_c0] = [h, c].map(|width| CpuBuffer::scratch::<T>(b * width));
    let [mut d_w_hh, mut d_w_ih, mut d_bias] = [rows * h, rows * e, sums].map(CpuBuffer::scratch::<T>);
    with_sequence::<T, _>(t, h0, options, |seq| {
        with_upstream::<T, _>(gradients, |upstream| {
            let saved = Saved {
                gates: slice(&gates),
                hs: hs.slice(),
                cells: slice(&cells),
                h0: first.slice(),
                c0: slice(&cell),
            };
            let gradients = Gradients {
                d_x: d_x.as_mut().map(CpuBuffer::as_mut_slice),
                d_h0: d_h0.as_mut_slice(),
                d_c0: d_c0.as_mut_slice(),
                d_w_hh: d_w_hh.as_mut_slice(),
                d_w_ih: d_w_ih.as_mut_slice(),
                d_bias: d_bias.as_mut_slice(),
            };
            backward(network, seq, &operands.input(), &saved, upstream, gradients)
        })
    });
    let finish = |buffer: CpuBuffer, shape: Shape| tensor::<T>(buffer, shape).to_dtype(x.dtype());
    Found {
        x: d_x.map(|d_x| finish(d_x, [b, t, e].into()).transpose(0, 1)),
        h0: finish(d_h0, [b, h].into()),
        c0: finish(d_c0, [b, c].into()),
        w_hh: finish(d_w_hh, [rows, h].into()),
        w_ih: finish(d_w_ih, [rows, e].into()),
        bias: finish(d_bias, [sums].into()),
    }
}

/// See [`Lstm`].
pub fn lstm(args: &SequenceArgs, c0: &Tensor) -> LstmOutput {
    let Results { hs, h_n, c_n, gates, cells } =
        compute_in!(args.x.dtype(), T => run::<T, _>(Lstm, args, Some(c0), sum_of, true));
    LstmOutput { hs, h_n, c_n, gates, cells }
}

/// See [`Lstm`].
pub fn lstm_gradients(
    args: &SequenceArgs,
    c0: &Tensor,
    saved: &LstmOutput,
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> LstmGradients {
    let saved = (&saved.hs, Some(&saved.gates), Some(&saved.cells));
    let Found { x, h0, c0, w_hh, w_ih, bias } = compute_in!(args.x.dtype(), T =>
        differentiate::<T, _>(Lstm, args, Some(c0), sum_of, saved, gradients, input_gradient));
    LstmGradients { x, h0, c0, w_hh, w_ih, bias }
}

/// See [`Gru`].
pub fn gru(args: &SequenceArgs) -> GruOutput {
    let Results { hs, h_n, gates, .. } =
        compute_in!(args.x.dtype(), T => run::<T, _>(Gru, args, None, half_added, true));
    GruOutput { hs, h_n, gates }
}

/// See [`Gru`].
pub fn gru_gradients(
    args: &SequenceArgs,
    saved: &GruOutput,
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> GruGradients {
    let saved = (&saved.hs, Some(&saved.gates), None);
    let Found { x, h0, w_hh, w_ih, bias, .. } = compute_in!(args.x.dtype(), T =>
        differentiate::<T, _>(Gru, args, None, half_added, saved, gradients, input_gradient));
    let h = args.h0.dim(1);
    let b_hh = Tensor::cat(&[&bias.narrow(0, 0, 2 * h), &bias.narrow(0, 3 * h, h)], 0);
    GruGradients { x, h0, w_hh, w_ih, b_ih: bias.narrow(0, 0, 3 * h), b_hh }
}

/// See [`Rnn`].
pub fn rnn(args: &SequenceArgs, nonlinearity: RnnNonlinearity) -> RnnOutput {
    let Results { hs, h_n, .. } =
        compute_in!(args.x.dtype(), T => run::<T, _>(Rnn(nonlinearity), args, None, sum_of, false));
    RnnOutput { hs, h_n }
}

/// See [`Rnn`].
pub fn rnn_gradients(
    args: &SequenceArgs,
    nonlinearity: RnnNonlinearity,
    hs: &Tensor,
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> RnnGradients {
    let network = Rnn(nonlinearity);
    let Found { x, h0, w_hh, w_ih, bias, .. } = compute_in!(args.x.dtype(), T =>
        differentiate::<T, _>(network, args, None, sum_of, (hs, None, None), gradients, input_gradient));
    RnnGradients { x, h0, w_hh, w_ih, bias }
}
