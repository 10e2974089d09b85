//! Layers one after another.

use crate::module::{Item, walk};
use crate::summary::group;
use crate::{Layer, Module, Visitor};
use ferrograd_autograd::{Var, no_grad};
use std::fmt::Write;

/// A model in evaluation; each part has its own mode again when this is dropped, also by a panic.
struct Evaluation<'a> {
    model: &'a Sequential,
    training: Vec<bool>,
}
impl<'a> Evaluation<'a> {
    fn of(model: &'a Sequential) -> Evaluation<'a> {
        let mut training = Vec::new();
        walk(model, &mut |item| {
            if let Item::Mode(mode) = item {
                training.push(mode.training());
                mode.set(false);
            }
        });
        Evaluation { model, training }
    }
}
impl Drop for Evaluation<'_> {
    fn drop(&mut self) {
        let mut training = self.training.iter();
        walk(self.model, &mut |item| {
            if let Item::Mode(mode) = item {
                training.next().into_iter().for_each(|&was| mode.set(was));
            }
        });
    }
}

/// Layers one after another, called "0", "1", … in the state dict.
///
/// ```
/// use ferrograd_autograd::Var;
/// use ferrograd_nn::{Linear, Relu, Sequential};
/// use ferrograd_tensor::Tensor;
/// let model = Sequential::new().add(Linear::new(4, 8)).add(Relu).add(Linear::new(8, 2));
/// assert_eq!(*model.forward(&Var::constant(Tensor::zeros([3, 4]))).shape(), [3, 2]);
/// ```
#[derive(Default)]
pub struct Sequential {
    layers: Vec<Box<dyn Layer + Send + Sync>>,
}
layer!(Sequential);

impl Module for Sequential {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.layers.iter().enumerate().for_each(|(i, layer)| visitor.field(&i.to_string(), layer));
    }
}

impl Sequential {
    /// Without layers: gives its input back.
    pub fn new() -> Sequential {
        Sequential::default()
    }
    /// One more layer.
    #[allow(clippy::should_implement_trait)]
    pub fn add(mut self, layer: impl Layer + Send + Sync + 'static) -> Sequential {
        self.layers.push(Box::new(layer));
        self
    }
    /// Number of layers.
    pub fn len(&self) -> usize {
        self.layers.len()
    }
    /// Are there no layers?
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
    /// The layers in order.
    pub fn iter(&self) -> impl Iterator<Item = &(dyn Layer + Send + Sync)> {
        self.layers.iter().map(|layer| &**layer)
    }
    /// The last layer's output. Integers (tokens) come as a constant: `&Var::from(&tokens)`.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        // Not `fold`: a closure would hide the caller's line from the layers' messages.
        let mut x = x.clone();
        for layer in &self.layers {
            x = layer.forward(&x);
        }
        x
    }
    /// A table of the layers with the shapes that come out for `input` and their numbers of parameters, as Keras prints it.
    ///
    /// Runs the model once, in evaluation and without history.
    #[track_caller]
    pub fn summary_for(&self, input: impl Into<Var>) -> String {
        let _restored = Evaluation::of(self);
        let input = input.into();
        let mut rows = vec![["Layer (type)".to_string(), "Output shape".to_string(), "Parameters".to_string()]];
        rows.push(["· (input)".to_string(), input.shape().to_string(), group(0)]);
        let mut x = input;
        for (i, layer) in self.layers.iter().enumerate() {
            x = no_grad(|| layer.forward(&x));
            rows.push([format!("{i} ({})", layer.type_name()), x.shape().to_string(), group(layer.num_parameters())]);
        }

        let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
        let (w0, w1, w2) = (width(0), width(1), width(2));
        let line = "─".repeat(w0 + w1 + w2 + 4);
        let mut out = format!("{}\n{line}\n", self.type_name());
        for (i, [layer, shape, count]) in rows.iter().enumerate() {
            let _ = writeln!(out, "{layer:w0$}  {shape:w1$}  {count:>w2$}");
            if i == 0 {
                let _ = writeln!(out, "{line}");
            }
        }
        let trainable = self.parameters().iter().filter(|p| p.requires_grad()).map(|p| p.tensor().numel()).sum();
        let all = self.num_parameters();
        let _ = write!(out, "{line}\nParameters: {} trainable, {} frozen", group(trainable), group(all - trainable));
        out
    }
}
