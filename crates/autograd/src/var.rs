//! A value with its history.

use crate::engine;
use crate::gradients::Gradients;
use crate::node::{Leaf, Node, Source};
use ferrograd_tensor::{DType, Device, Shape, Tensor, dtype::Element, ensure};
use std::fmt;
use std::sync::Arc;

/// A [`Tensor`] with the history of how it was made. Cheap to clone.
///
/// A `Var` none of whose parents needs a gradient records nothing, so inference costs what the tensor ops cost.
#[derive(Clone)]
pub struct Var {
    pub(crate) value: Tensor,
    pub(crate) source: Source,
}

impl Var {
    /// A variable that gradients are collected for.
    ///
    /// # Panics
    /// If the tensor is not a float: integers have no derivative.
    #[track_caller]
    pub fn leaf(value: Tensor) -> Var {
        Var::from_leaf(&Arc::new(Leaf::new()), value)
    }
    /// The variable with identity `leaf` and the current value `value`: how a parameter, whose value changes from step
    /// to step, takes part in an expression.
    #[track_caller]
    pub fn from_leaf(leaf: &Arc<Leaf>, value: Tensor) -> Var {
        ensure!(value.dtype().is_float(), DType, "Var::leaf", "only floats have gradients, got {}", value.dtype());
        Var { value, source: Source::Leaf(leaf.clone()) }
    }
    /// A value without history.
    pub fn constant(value: Tensor) -> Var {
        Var { value, source: Source::Constant }
    }
    /// The number itself.
    pub fn tensor(&self) -> &Tensor {
        &self.value
    }
    /// The number itself.
    pub fn into_tensor(self) -> Tensor {
        self.value
    }
    /// The same value without its history: gradients stop here.
    pub fn detach(&self) -> Var {
        Var::constant(self.value.clone())
    }
    /// Will backward bring a gradient here?
    pub fn requires_grad(&self) -> bool {
        !matches!(self.source, Source::Constant)
    }
    /// The operation that made it, if it was recorded.
    pub fn node(&self) -> Option<&Arc<Node>> {
        match &self.source {
            Source::Node(node, _) => Some(node),
            _ => None,
        }
    }
    /// The extent of each dimension.
    pub fn shape(&self) -> &Shape {
        self.value.shape()
    }
    /// The extents as a slice.
    pub fn dims(&self) -> &[usize] {
        self.value.dims()
    }
    /// The extent of dimension `dim`, counted from the end if negative.
    #[track_caller]
    pub fn dim(&self, dim: isize) -> usize {
        self.value.dim(dim)
    }
    /// The extents as an array: `let [b, t, c] = x.dims_of("attention");`
    #[track_caller]
    pub fn dims_of<const N: usize>(&self, op: &'static str) -> [usize; N] {
        self.value.dims_of(op)
    }
    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.value.rank()
    }
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.value.numel()
    }
    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.value.dtype()
    }
    /// Where it lives.
    pub fn device(&self) -> Device {
        self.value.device()
    }
    /// The only element.
    #[track_caller]
    pub fn item<T: Element>(&self) -> T {
        self.value.item()
    }

    /// The gradient of this scalar with respect to every leaf it depends on.
    ///
    /// Frees what the graph saved as it goes: a second `backward` through the same graph is an error (see
    /// [`backward_retaining`](Var::backward_retaining)).
    ///
    /// # Panics
    /// If this is not a single element, or depends on no leaf.
    #[track_caller]
    pub fn backward(&self) -> Gradients {
        engine::backward(self, None, false)
    }
    /// [`backward`](Var::backward) that keeps the graph for another one.
    #[track_caller]
    pub fn backward_retaining(&self) -> Gradients {
        engine::backward(self, None, true)
    }
    /// The gradient of `Σ self · weights`: backward of a value that is not a scalar.
    #[track_caller]
    pub fn backward_from(&self, weights: &Tensor) -> Gradients {
        engine::backward(self, Some(weights.clone()), false)
    }

    /// Calls `hook` with the gradient that arrives here, on each backward.
    pub fn register_hook(&self, hook: impl Fn(&Tensor) + Send + Sync + 'static) {
        match &self.source {
            Source::Constant => {}
            Source::Leaf(leaf) => leaf.hooks.lock().unwrap_or_else(|e| e.into_inner()).push(Arc::new(hook)),
            Source::Node(node, i) => node.attach(|a| a.hooks.push((*i as usize, Arc::new(hook)))),
        }
    }
    /// Keeps this intermediate value's gradient in the [`Gradients`], as a leaf's is.
    pub fn retain_grad(&self) {
        if let Source::Node(node, i) = &self.source {
            node.attach(|a| a.retained.push(*i as usize));
        }
    }
}

impl From<Tensor> for Var {
    fn from(t: Tensor) -> Var {
        Var::constant(t)
    }
}
impl From<&Tensor> for Var {
    fn from(t: &Tensor) -> Var {
        Var::constant(t.clone())
    }
}
impl From<&Var> for Var {
    fn from(v: &Var) -> Var {
        v.clone()
    }
}
impl AsRef<Tensor> for Var {
    fn as_ref(&self) -> &Tensor {
        &self.value
    }
}
impl fmt::Display for Var {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(&self.value, f)
    }
}
impl fmt::Debug for Var {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Debug::fmt(&self.value, f)?;
        match &self.source {
            Source::Constant => Ok(()),
            Source::Leaf(_) => f.write_str(" (leaf)"),
            Source::Node(node, _) => write!(f, " (from {})", node.name()),
        }
    }
}
