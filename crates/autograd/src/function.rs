//! The one trait of every operation, and what an operation keeps for its derivative.

use crate::mode;
use crate::node::{Few, Meta, Node, Source};
use crate::var::Var;
use ferrograd_tensor::{DType, Shape, Tensor, ensure, fail};
use smallvec::SmallVec;
use std::panic::Location;
use std::sync::Arc;

/// Whether an operation has a derivative.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Derivative {
    /// `backward` gives it.
    Defined,
    /// The output does not depend smoothly on anything (argmax, comparisons): outputs are constants.
    Nowhere,
    /// Nobody wrote it: applying the operation to a value that needs a gradient is an error.
    Missing,
}

/// A differentiable operation, ours or the user's: n inputs, m outputs.
///
/// ```
/// use ferrograd_autograd::{Function, Saved, Var};
/// use ferrograd_tensor::Tensor;
///
/// /// y = x²
/// struct Square;
/// impl Function for Square {
///     fn name(&self) -> &'static str {
///         "square"
///     }
///     fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
///         saved.save_input(0);
///         vec![&x[0] * &x[0]]
///     }
///     fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
///         let g = g[0].as_ref().unwrap();
///         vec![Some(g * saved.input(0) * 2.0)]
///     }
/// }
///
/// let x = Var::leaf(Tensor::scalar(3.0));
/// let y = Square.apply1(&[&x]);
/// assert_eq!(y.backward().wrt(&x).item::<f64>(), 6.0);
/// ```
pub trait Function: Send + Sync + 'static {
    /// The operation's name, for error messages and profiles.
    fn name(&self) -> &'static str;

    /// The outputs. What backward will need goes into `saved`.
    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Vec<Tensor>;

    /// The vector–Jacobian product: from `∂L/∂output` for each output (`None` where the loss does not depend on it) to
    /// `∂L/∂input` for each input (`None` where it is zero or [`Saved::needs_grad`] says that nobody asks).
    ///
    /// Written in `Var` operations on `grads`, [`Saved::input`] and [`Saved::output`], the result can be
    /// differentiated again. A backward that computes on raw tensors (a fused kernel) is right to first order only; asked
    /// for more, the engine differentiates [`composed`](Function::composed), and without one it says so.
    ///
    /// All or nothing: the engine sees that a gradient has no history, not that half of its formula has none, as in
    /// `g * saved.input(0).tensor()`. [`gradgradcheck`](crate::gradgradcheck) sees it.
    fn backward(&self, saved: &Saved, grads: &[Option<Var>]) -> Vec<Option<Var>>;

    /// The same mathematics, composed of simpler differentiable operations. A fused operation must give it: it
    /// documents the mathematics, is the oracle of its tests, and is what a second derivative goes through. The inputs
    /// must all have been saved for that last use.
    fn composed(&self, inputs: &[Var]) -> Option<Vec<Var>> {
        let _ = inputs;
        None
    }

    /// Whether there is a derivative at all.
    fn derivative(&self) -> Derivative {
        Derivative::Defined
    }

    /// Applies the operation and records it if an input needs a gradient.
    #[track_caller]
    fn apply(self, inputs: &[&Var]) -> Vec<Var>
    where
        Self: Sized,
    {
        let (outputs, node) = record(self, inputs);
        outputs.into_iter().enumerate().map(|(i, value)| output(value, node.as_ref(), i)).collect()
    }

    /// [`apply`](Function::apply) for an operation with one output.
    #[track_caller]
    fn apply1(self, inputs: &[&Var]) -> Var
    where
        Self: Sized,
    {
        let (mut outputs, node) = record(self, inputs);
        debug_assert_eq!(outputs.len(), 1);
        output(outputs.pop().expect("one output"), node.as_ref(), 0)
    }
}

/// The outputs, and the node that remembers them if an input needs a gradient. All that is compiled for each operation: the
/// rest knows it as a `dyn Function`.
#[track_caller]
fn record(op: impl Function, inputs: &[&Var]) -> (Vec<Tensor>, Option<Arc<Node>>) {
    // Not in the closure, whose caller would be this line.
    let location = Location::caller();
    let (outputs, kept) = compute(&op, inputs);
    let node = kept.map(|kept| Node::new(Box::new(op), inputs, outputs.len(), kept, location));
    (outputs, node)
}

/// The outputs, and what the operation keeps for its derivative if an input needs a gradient.
#[track_caller]
fn compute(op: &dyn Function, inputs: &[&Var]) -> (Vec<Tensor>, Option<Box<[Kept]>>) {
    mode::note_use(inputs);
    let record = mode::is_grad_enabled() && inputs.iter().any(|v| v.requires_grad());
    let record = record
        && match op.derivative() {
            Derivative::Defined => true,
            Derivative::Nowhere => false,
            Derivative::Missing => fail!(
                Derivative,
                op.name(),
                "an input needs a gradient, but this operation has no derivative (detach its inputs, or call it under no_grad)"
            ),
        };
    let several: Few<Tensor>;
    let values = match inputs {
        [x] => std::slice::from_ref(x.tensor()),
        _ => {
            several = inputs.iter().map(|v| v.tensor().clone()).collect();
            &several[..]
        }
    };
    let mut saved = Saved(Stage::Forward { inputs, record, keep: SmallVec::new() });
    let outputs = op.forward(values, &mut saved);
    if mode::anomaly() {
        for y in &outputs {
            check_finite(op.name(), "the result", y, Location::caller());
        }
    }
    let kept = record.then(|| saved.finish(&outputs));
    (outputs, kept)
}

/// Output `i` of an operation, with its history. An integer output (the indices of a sort) has no derivative.
fn output(value: Tensor, node: Option<&Arc<Node>>, i: usize) -> Var {
    let source = match node {
        Some(node) if value.dtype().is_float() => Source::Node(node.clone(), i as u32),
        _ => Source::Constant,
    };
    Var { value, source }
}

/// Stops if `t` holds a NaN or an infinity.
#[track_caller]
pub(crate) fn check_finite(op: &'static str, what: &str, t: &Tensor, location: &Location) {
    if !t.dtype().is_float() || t.numel() == 0 {
        return;
    }
    let bad = t.to_f64_vec().into_iter().find(|v| !v.is_finite());
    if let Some(value) = bad {
        fail!(Anomaly, op, "{what} of shape {} holds {value}; the operation was called at {location}", t.shape());
    }
}

/// What a tensor that forward keeps is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum What {
    Input(u32),
    Output(u32),
    Extra,
}

/// A tensor that forward keeps.
pub(crate) type Kept = (What, Tensor);

/// What forward leaves for backward.
pub struct Saved<'a>(Stage<'a>);

#[allow(clippy::large_enum_variant)] // on the stack, for the time of one call
enum Stage<'a> {
    /// What is kept is noted; inputs and outputs are put in when forward is done.
    Forward {
        inputs: &'a [&'a Var],
        record: bool,
        keep: SmallVec<[(What, Option<Tensor>); 4]>,
    },
    Backward {
        node: &'a Arc<Node>,
        kept: &'a [Kept],
        create_graph: bool,
    },
}

impl<'a> Saved<'a> {
    /// Keeps input `i` for [`input`](Saved::input).
    pub fn save_input(&mut self, i: usize) {
        self.keep(What::Input(i as u32), None);
    }
    /// Keeps every input.
    pub fn save_inputs(&mut self) {
        (0..self.num_inputs()).for_each(|i| self.save_input(i));
    }
    /// Keeps output `i` for [`output`](Saved::output).
    pub fn save_output(&mut self, i: usize) {
        self.keep(What::Output(i as u32), None);
    }
    /// Keeps something that is neither input nor output (indices, a mask, statistics of a fused kernel) for
    /// [`tensor`](Saved::tensor), in order.
    pub fn save(&mut self, t: Tensor) {
        self.keep(What::Extra, Some(t));
    }
    fn keep(&mut self, what: What, t: Option<Tensor>) {
        if let Stage::Forward { record: true, keep, .. } = &mut self.0 {
            keep.push((what, t));
        }
    }
    /// What forward asked to keep, the inputs and outputs among it: exactly as much memory as that takes.
    fn finish(&mut self, outputs: &[Tensor]) -> Box<[Kept]> {
        let Stage::Forward { inputs, keep, .. } = &mut self.0 else { unreachable!("backward keeps nothing") };
        let mut kept = Vec::with_capacity(keep.len());
        kept.extend(keep.drain(..).map(|(what, extra)| {
            let value = match what {
                What::Input(i) => inputs[i as usize].tensor().clone(),
                What::Output(i) => outputs[i as usize].clone(),
                What::Extra => extra.expect("given to save"),
            };
            (what, value)
        }));
        kept.into_boxed_slice()
    }
    /// Will there be a backward? If not, forward need not compute what only backward reads.
    pub fn is_recording(&self) -> bool {
        !matches!(self.0, Stage::Forward { record: false, .. })
    }

    /// What `node` kept, for its backward; if `create_graph`, with history.
    pub(crate) fn of(node: &'a Arc<Node>, kept: &'a [Kept], create_graph: bool) -> Saved<'a> {
        Saved(Stage::Backward { node, kept, create_graph })
    }
    /// Everything that was kept.
    fn kept(&self) -> &'a [Kept] {
        match self.0 {
            Stage::Forward { .. } => &[],
            Stage::Backward { kept, .. } => kept,
        }
    }
    fn find(&self, what: What) -> Option<&'a Tensor> {
        self.kept().iter().find(|(kept, _)| *kept == what).map(|(_, t)| t)
    }
    /// `value` with the history that `source` finds in the node, if there is to be one.
    fn with_history(&self, value: &Tensor, source: impl FnOnce(&Arc<Node>) -> Source) -> Var {
        let source = match self.0 {
            Stage::Backward { node, create_graph: true, .. } => source(node),
            _ => Source::Constant,
        };
        Var { value: value.clone(), source }
    }
    /// Input `i`, which forward saved, with its history.
    #[track_caller]
    pub fn input(&self, i: usize) -> Var {
        let value = self.find(What::Input(i as u32)).expect("backward asked for an input that forward did not save");
        self.with_history(value, |node| node.inputs[i].clone())
    }
    /// Output `i`, which forward saved, with its history.
    #[track_caller]
    pub fn output(&self, i: usize) -> Var {
        let value = self.find(What::Output(i as u32)).expect("backward asked for an output that forward did not save");
        self.with_history(value, |node| Source::Node(node.clone(), i as u32))
    }
    /// The `k`-th tensor given to [`save`](Saved::save). It has no history: a derivative that reads a saved float this
    /// way cannot be differentiated again, and asking for that is an error.
    #[track_caller]
    pub fn tensor(&self, k: usize) -> &Tensor {
        let mut extra = self.kept().iter().filter(|(what, _)| *what == What::Extra);
        let (_, t) = extra.nth(k).expect("backward asked for more than forward saved");
        if let Stage::Backward { node, create_graph: true, .. } = self.0
            && t.dtype().is_float()
        {
            fail!(
                Derivative,
                node.name(),
                "the second derivative is not defined: backward reads intermediate results of a fused kernel \
                 (give the operation a `composed` form and save all its inputs)"
            );
        }
        t
    }
    /// Does anybody ask for the gradient of input `i`?
    pub fn needs_grad(&self, i: usize) -> bool {
        match &self.0 {
            Stage::Forward { inputs, record, .. } => *record && inputs[i].requires_grad(),
            Stage::Backward { node, .. } => !matches!(node.inputs[i], Source::Constant),
        }
    }
    /// Shape of input `i`, saved or not.
    pub fn input_shape(&self, i: usize) -> &Shape {
        match &self.0 {
            Stage::Forward { inputs, .. } => inputs[i].shape(),
            Stage::Backward { node, .. } => &node.meta(i).shape,
        }
    }
    /// dtype of input `i`, saved or not.
    pub fn input_dtype(&self, i: usize) -> DType {
        match &self.0 {
            Stage::Forward { inputs, .. } => inputs[i].dtype(),
            Stage::Backward { node, .. } => node.meta(i).dtype,
        }
    }
    /// Number of inputs.
    pub fn num_inputs(&self) -> usize {
        match &self.0 {
            Stage::Forward { inputs, .. } => inputs.len(),
            Stage::Backward { node, .. } => node.inputs.len(),
        }
    }
    /// Will this derivative be differentiated again? Then backward must be written in `Var` operations.
    pub fn create_graph(&self) -> bool {
        matches!(self.0, Stage::Backward { create_graph: true, .. })
    }
    /// The inputs with their history, if all were saved.
    pub(crate) fn all_inputs(&self) -> Option<Vec<Var>> {
        let saved = |i| self.find(What::Input(i as u32)).is_some();
        (0..self.num_inputs()).all(saved).then(|| (0..self.num_inputs()).map(|i| self.input(i)).collect())
    }
}

/// The operation's result must match what a gradient of input `i` looks like.
#[track_caller]
pub(crate) fn check_gradient(op: &'static str, i: usize, expected: &Meta, g: &Tensor) {
    ensure!(
        *g.shape() == expected.shape && g.dtype() == expected.dtype,
        Derivative,
        op,
        "backward gave input {i} a gradient of shape {} and dtype {}; the input has {} and {}",
        g.shape(),
        g.dtype(),
        expected.shape,
        expected.dtype
    );
}
