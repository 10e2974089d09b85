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
        apply(self, inputs, |outputs, node| {
            outputs.into_iter().enumerate().map(|(i, value)| output(value, node.as_ref(), i)).collect()
        })
    }

    /// [`apply`](Function::apply) for an operation with one output.
    #[track_caller]
    fn apply1(self, inputs: &[&Var]) -> Var
    where
        Self: Sized,
    {
        apply(self, inputs, |mut outputs, node| {
            debug_assert_eq!(outputs.len(), 1);
            output(outputs.swap_remove(0), node.as_ref(), 0)
        })
    }
}

/// Computes, and records if an input needs a gradient; `finish` makes variables of the results.
#[track_caller]
fn apply<F: Function, R>(op: F, inputs: &[&Var], finish: impl FnOnce(Vec<Tensor>, Option<Arc<Node>>) -> R) -> R {
    let name = op.name();
    mode::note_use(inputs);
    let record = mode::is_grad_enabled() && inputs.iter().any(|v| v.requires_grad());
    let record = record
        && match op.derivative() {
            Derivative::Defined => true,
            Derivative::Nowhere => false,
            Derivative::Missing => fail!(
                Derivative,
                name,
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
    let mut saved = Saved { keep: record, ..Saved::default() };
    if record {
        saved.metas = values.iter().map(Meta::of).collect();
        saved.needs = inputs.iter().map(|v| v.requires_grad()).collect();
    }
    let outputs = op.forward(values, &mut saved);
    let location = Location::caller();
    if mode::anomaly() {
        for y in &outputs {
            check_finite(name, "the result", y, location);
        }
    }
    if !record {
        return finish(outputs, None);
    }
    saved.fill(values, &outputs);
    let sources = inputs.iter().map(|v| v.source.clone()).collect();
    let metas = outputs.iter().map(Meta::of).collect();
    finish(outputs, Some(Node::new(Arc::new(op), sources, metas, saved, location)))
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
enum Kept {
    Input(usize),
    Output(usize),
    Extra,
}

/// What forward leaves for backward.
#[derive(Default, Clone)]
pub struct Saved {
    keep: bool,
    create_graph: bool,
    /// Inputs and outputs are put in when forward is done.
    kept: Vec<(Kept, Option<Tensor>)>,
    needs: SmallVec<[bool; 16]>,
    metas: Few<Meta>,
    /// Set while a derivative with history is made: where the inputs and outputs come from.
    node: Option<Arc<Node>>,
}

impl Saved {
    /// Keeps input `i` for [`input`](Saved::input).
    pub fn save_input(&mut self, i: usize) {
        self.keep(Kept::Input(i), None);
    }
    /// Keeps every input.
    pub fn save_inputs(&mut self) {
        (0..self.metas.len()).for_each(|i| self.save_input(i));
    }
    /// Keeps output `i` for [`output`](Saved::output).
    pub fn save_output(&mut self, i: usize) {
        self.keep(Kept::Output(i), None);
    }
    /// Keeps something that is neither input nor output (indices, a mask, statistics of a fused kernel) for
    /// [`tensor`](Saved::tensor), in order.
    pub fn save(&mut self, t: Tensor) {
        self.keep(Kept::Extra, Some(t));
    }
    fn keep(&mut self, what: Kept, t: Option<Tensor>) {
        if self.keep {
            self.kept.push((what, t));
        }
    }
    /// Puts the inputs and outputs in that forward asked to keep.
    fn fill(&mut self, inputs: &[Tensor], outputs: &[Tensor]) {
        for (what, t) in &mut self.kept {
            match *what {
                Kept::Input(i) => *t = Some(inputs[i].clone()),
                Kept::Output(i) => *t = Some(outputs[i].clone()),
                Kept::Extra => {}
            }
        }
    }
    fn find(&self, what: Kept) -> Option<&Tensor> {
        self.kept.iter().find(|(kept, _)| *kept == what)?.1.as_ref()
    }
    /// Will there be a backward? If not, forward need not compute what only backward reads.
    pub fn is_recording(&self) -> bool {
        self.keep
    }

    /// Input `i`, which forward saved, with its history.
    #[track_caller]
    pub fn input(&self, i: usize) -> Var {
        let value = self.find(Kept::Input(i)).expect("backward asked for an input that forward did not save").clone();
        let source = match (&self.node, self.create_graph) {
            (Some(node), true) => node.inputs[i].clone(),
            _ => Source::Constant,
        };
        Var { value, source }
    }
    /// Output `i`, which forward saved, with its history.
    #[track_caller]
    pub fn output(&self, i: usize) -> Var {
        let value = self.find(Kept::Output(i)).expect("backward asked for an output that forward did not save").clone();
        let source = match (&self.node, self.create_graph) {
            (Some(node), true) => Source::Node(node.clone(), i as u32),
            _ => Source::Constant,
        };
        Var { value, source }
    }
    /// The `k`-th tensor given to [`save`](Saved::save). It has no history: a derivative that reads a saved float this
    /// way cannot be differentiated again, and asking for that is an error.
    #[track_caller]
    pub fn tensor(&self, k: usize) -> &Tensor {
        let mut extra = self.kept.iter().filter(|(kept, _)| *kept == Kept::Extra);
        let t = extra.nth(k).and_then(|(_, t)| t.as_ref()).expect("backward asked for more than forward saved");
        if self.create_graph && t.dtype().is_float() {
            let op = self.node.as_ref().map_or("backward", |n| n.name());
            fail!(
                Derivative,
                op,
                "the second derivative is not defined: backward reads intermediate results of a fused kernel \
                 (give the operation a `composed` form and save all its inputs)"
            );
        }
        t
    }
    /// Does anybody ask for the gradient of input `i`?
    pub fn needs_grad(&self, i: usize) -> bool {
        self.needs[i]
    }
    /// Shape of input `i`, saved or not.
    pub fn input_shape(&self, i: usize) -> &Shape {
        &self.metas[i].shape
    }
    /// dtype of input `i`, saved or not.
    pub fn input_dtype(&self, i: usize) -> DType {
        self.metas[i].dtype
    }
    /// Number of inputs.
    pub fn num_inputs(&self) -> usize {
        self.metas.len()
    }
    /// Will this derivative be differentiated again? Then backward must be written in `Var` operations.
    pub fn create_graph(&self) -> bool {
        self.create_graph
    }

    pub(crate) fn input_meta(&self, i: usize) -> &Meta {
        &self.metas[i]
    }
    /// The inputs with their history, if all were saved.
    pub(crate) fn all_inputs(&self) -> Option<Vec<Var>> {
        let all = (0..self.metas.len()).all(|i| self.find(Kept::Input(i)).is_some());
        all.then(|| (0..self.metas.len()).map(|i| self.input(i)).collect())
    }
    /// A view of the same values for a backward with history.
    pub(crate) fn with_history(&self, node: &Arc<Node>) -> Saved {
        Saved {
            keep: true,
            kept: self.kept.clone(),
            needs: self.needs.clone(),
            metas: self.metas.clone(),
            node: Some(node.clone()),
            create_graph: true,
        }
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
