//! What the recurrent ops share: options, checks, the product with all of the inputs, and the loop over time that runs
//! where a backend has no fused kernel.

use crate::tensor::same_device;
use crate::{DType, Device, Tensor, ensure};

/// How a sequence is run through.
#[derive(Clone, Debug, Default)]
pub struct SequenceOptions {
    /// From each row's last valid step back to step 0. The outputs stay at their own times.
    pub reverse: bool,
    /// Valid steps of each row of the batch, `B` numbers in `0..=T`. At the steps after them the output is zero and the
    /// state stays what it was, so that the final state is the one after the row's own last step.
    pub lengths: Option<Vec<usize>>,
    /// `[B, H]`: multiplies the state in every recurrent product, the same at each step (Gal & Ghahramani 2016; Keras's
    /// `recurrent_dropout`). Holds 0 and `1/(1 − p)`.
    pub recurrent_mask: Option<Tensor>,
}

/// The weights of one layer and direction, `G` gates: 1 (RNN), 3 (GRU) or 4 (LSTM). `X` is a tensor or a variable.
#[derive(Debug)]
pub struct RecurrentWeights<'a, X> {
    /// `[G·H, I]`, of the input.
    pub w_ih: &'a X,
    /// `[G·H, H]`, of the state.
    pub w_hh: &'a X,
    /// `[G·H]`, of the input.
    pub b_ih: Option<&'a X>,
    /// `[G·H]`, of the state.
    pub b_hh: Option<&'a X>,
}
impl<X> Clone for RecurrentWeights<'_, X> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<X> Copy for RecurrentWeights<'_, X> {}

/// What a recurrent network was given; an LSTM's first cell comes beside it.
#[derive(Clone, Copy)]
pub struct SequenceArgs<'a> {
    /// The inputs `[T, B, E]`.
    pub x: &'a Tensor,
    /// The weights.
    pub weights: &'a RecurrentWeights<'a, Tensor>,
    /// The first state `[B, H]`.
    pub h0: &'a Tensor,
    /// How the sequence is run through.
    pub options: &'a SequenceOptions,
}

/// The gradients that come into a sequence; `None` is zero.
#[derive(Clone, Copy, Default)]
pub struct SequenceGradients<'a> {
    /// Of the outputs `[T, B, H]`.
    pub hs: Option<&'a Tensor>,
    /// Of the final state `[B, H]`.
    pub h_n: Option<&'a Tensor>,
    /// Of the LSTM's final cell `[B, H]`.
    pub c_n: Option<&'a Tensor>,
}

/// Checks everything and returns the options for the backend: the mask in the accumulator dtype.
#[track_caller]
pub(crate) fn check(
    op: &'static str,
    gates: usize,
    x: &Tensor,
    weights: &RecurrentWeights<Tensor>,
    states: &[(&str, &Tensor)],
    options: &SequenceOptions,
) -> SequenceOptions {
    let dtype = x.dtype();
    ensure!(dtype.is_float(), DType, op, "needs floats, got {dtype}");
    ensure!(x.rank() == 3, Shape, op, "the input must be [time, batch, features], got {}", x.shape());
    let [t, b, i] = x.dims_of(op);
    ensure!(
        weights.w_hh.rank() == 2 && weights.w_hh.dim(0) == gates * weights.w_hh.dim(1),
        Shape,
        op,
        "w_hh must be [{gates}·H, H], got {}",
        weights.w_hh.shape()
    );
    let h = weights.w_hh.dim(1);
    let expect = |name: &str, t: &Tensor, shape: &[usize], rule: &str| {
        same_device(op, &[x, t]);
        ensure!(t.dims() == shape, Shape, op, "{name} must be {rule} = {shape:?}, got {}", t.shape());
        ensure!(t.dtype() == dtype, DType, op, "the input is {dtype} and {name} is {}", t.dtype());
    };
    expect("w_hh", weights.w_hh, &[gates * h, h], "[gates · H, H]");
    expect("w_ih", weights.w_ih, &[gates * h, i], "[gates · H, features]");
    for (name, bias) in [("b_ih", weights.b_ih), ("b_hh", weights.b_hh)] {
        if let Some(bias) = bias {
            expect(name, bias, &[gates * h], "[gates · H]");
        }
    }
    for (name, state) in states {
        expect(name, state, &[b, h], "[batch, H]");
    }
    if let Some(lengths) = &options.lengths {
        ensure!(lengths.len() == b, Shape, op, "{} lengths for a batch of {b}", lengths.len());
        for (row, &length) in lengths.iter().enumerate() {
            ensure!(length <= t, Value, op, "length {length} of row {row} exceeds the {t} time steps");
        }
    }
    let mut options = options.clone();
    if let Some(mask) = &mut options.recurrent_mask {
        same_device(op, &[x, mask]);
        ensure!(
            mask.dims() == [b, h],
            Shape,
            op,
            "recurrent_mask must be [batch, H] = [{b}, {h}], got {}",
            mask.shape()
        );
        ensure!(mask.dtype() != DType::Bool, DType, op, "recurrent_mask holds factors, not truth values");
        *mask = mask.to_dtype(dtype.accumulator());
    }
    options
}

/// Fails unless each gradient looks like the output that it belongs to.
#[track_caller]
pub(crate) fn check_gradients<const N: usize>(op: &'static str, pairs: [(Option<&Tensor>, &Tensor); N]) {
    for (g, y) in pairs {
        ensure!(
            g.is_none_or(|g| g.shape() == y.shape() && g.dtype() == y.dtype()),
            Shape,
            op,
            "a gradient must have its output's shape {} and dtype {}",
            y.shape(),
            y.dtype()
        );
    }
}

/// `W_ih xₜ + bias` `[T, B, G·H]` for all of time, as one product.
pub(crate) fn input_gates(x: &Tensor, w_ih: &Tensor, bias: Option<&Tensor>) -> Tensor {
    x.linear(w_ih, bias)
}

/// The sum of the two, where there are any.
pub(crate) fn sum_of(a: Option<&Tensor>, b: Option<&Tensor>) -> Option<Tensor> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.add(b)),
        (a, b) => a.or(b).cloned(),
    }
}

/// Runs `step(t, states before) -> (states after, what to keep)` over time. `states[0]` is the output. Returns the outputs,
/// the final states and what was kept, zero where a row is over.
pub(crate) fn run<const S: usize, const K: usize>(
    steps: usize,
    options: &SequenceOptions,
    mut states: [Tensor; S],
    widths: [usize; K],
    mut step: impl FnMut(usize, &[Tensor; S]) -> ([Tensor; S], [Tensor; K]),
) -> (Tensor, [Tensor; S], [Tensor; K]) {
    let [b, h]: [usize; 2] = states[0].dims_of("sequence");
    let (dtype, device) = (states[0].dtype(), states[0].device());
    let nothing = |width: usize| Tensor::full_on([0, b, width], 0.0, dtype, &device);
    let mut hs: Vec<Tensor> = Vec::with_capacity(steps);
    let mut kept: [Vec<Tensor>; K] = std::array::from_fn(|_| Vec::with_capacity(steps));
    for s in 0..steps {
        let t = if options.reverse { steps - 1 - s } else { s };
        let active = active_rows(options, t, &device);
        let (new, keep) = step(t, &states);
        let only = |x: &Tensor| match &active {
            Some(active) => active.where_(x, &x.zeros_like()),
            None => x.clone(),
        };
        hs.push(only(&new[0]));
        kept.iter_mut().zip(&keep).for_each(|(kept, x)| kept.push(only(x)));
        for (state, new) in states.iter_mut().zip(new) {
            *state = match &active {
                Some(active) => active.where_(&new, state),
                None => new,
            };
        }
    }
    let over_time = |mut xs: Vec<Tensor>, width: usize| {
        if options.reverse {
            xs.reverse();
        }
        if xs.is_empty() { nothing(width) } else { Tensor::stack(&xs.iter().collect::<Vec<_>>(), 0) }
    };
    let mut kept = kept.into_iter().zip(widths).map(|(xs, width)| over_time(xs, width));
    let kept = std::array::from_fn(|_| kept.next().expect("one for each"));
    (over_time(hs, h), states, kept)
}

/// `[B, 1]`, true for the rows that have a step `t`; `None` if all do.
pub fn active_rows(options: &SequenceOptions, t: usize, device: &Device) -> Option<Tensor> {
    let lengths = options.lengths.as_ref()?;
    if lengths.iter().all(|&length| t < length) {
        return None;
    }
    let active: Vec<bool> = lengths.iter().map(|&length| t < length).collect();
    Some(Tensor::from_vec(active, [lengths.len(), 1]).to_device(device))
}

/// `W_hh (mask ∘ h)`.
pub(crate) fn recurrent_product(h: &Tensor, w_hh: &Tensor, options: &SequenceOptions) -> Tensor {
    match &options.recurrent_mask {
        Some(mask) => h.mul(mask).matmul(&w_hh.t()),
        None => h.matmul(&w_hh.t()),
    }
}
