//! The trait of everything that holds parameters.

use crate::param::{Buffer, Mode, Param};
use crate::state_dict::{LoadReport, StateDict};
use ferrograd_autograd::Var;
use ferrograd_tensor::{DType, Device, Result, ensure};
use std::collections::HashSet;

/// Something that holds parameters: a layer, or a struct of layers. Derive it.
///
/// ```
/// # extern crate ferrograd_nn as ferrograd; // an application depends on `ferrograd` itself
/// # use ferrograd_nn::{Module, Param};
/// # use ferrograd_tensor::Tensor;
/// #[derive(Module)]
/// struct Affine { scale: Param, shift: Param }
/// let affine = Affine { scale: Param::new(Tensor::ones([3])), shift: Param::new(Tensor::zeros([3])) };
/// let names: Vec<String> = affine.named_parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["scale", "shift"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a Module",
    note = "derive it with #[derive(Module)], or leave the field out of the module with #[module(skip)]"
)]
pub trait Module {
    /// Shows every part to `visitor`: [`Visitor::field`] for each, in the order of declaration.
    fn visit(&self, visitor: &mut Visitor<'_>);

    /// The type's name, for summaries.
    fn type_name(&self) -> &'static str {
        let full = std::any::type_name::<Self>();
        let end = full.find('<').unwrap_or(full.len());
        full[..end].rsplit("::").next().unwrap_or(full)
    }

    /// The settings that [`describe`](Module::describe) shows in the parentheses: `in_features=784, out_features=10`.
    fn extra_repr(&self) -> String {
        String::new()
    }
    /// The module and its parts with their settings, as PyTorch prints them.
    fn describe(&self) -> String {
        crate::describe::describe(self)
    }

    /// Every trainable or frozen parameter with its path, in the order of declaration; a tied one under each name.
    fn named_parameters(&self) -> Vec<(String, Param)> {
        let mut out = Vec::new();
        walk(self, &mut |item| {
            if let Item::Param(path, p) = item {
                out.push((path.to_string(), p.clone()));
            }
        });
        out
    }
    /// Every parameter once, in the order of declaration.
    fn parameters(&self) -> Vec<Param> {
        let mut seen = HashSet::new();
        self.named_parameters().into_iter().map(|(_, p)| p).filter(|p| seen.insert(p.id())).collect()
    }
    /// Every buffer with its path.
    fn named_buffers(&self) -> Vec<(String, Buffer)> {
        let mut out = Vec::new();
        walk(self, &mut |item| {
            if let Item::Buffer(path, b) = item {
                out.push((path.to_string(), b.clone()));
            }
        });
        out
    }
    /// Number of scalar parameters, tied ones counted once.
    fn num_parameters(&self) -> usize {
        self.parameters().iter().map(|p| p.tensor().numel()).sum()
    }

    /// Parameters and buffers by path: what is saved.
    fn state_dict(&self) -> StateDict {
        let mut out = StateDict::new();
        walk(self, &mut |item| match item {
            Item::Param(path, p) => out.insert(path, p.tensor()),
            Item::Buffer(path, b) => out.insert(path, b.tensor()),
            _ => {}
        });
        out
    }
    /// Takes over the values of `state` by name, cast to each parameter's dtype and device.
    ///
    /// Strict: a name missing, unexpected or of another shape is an error, and nothing is loaded. Otherwise what fits
    /// is loaded, and the report says what did not.
    fn load_state_dict(&self, state: &StateDict, strict: bool) -> Result<LoadReport> {
        crate::state_dict::load(self, state, strict)
    }

    /// In training: dropout drops, batch norm uses the batch's statistics.
    fn train(&self) {
        self.set_training(true);
    }
    /// Not in training.
    fn eval(&self) {
        self.set_training(false);
    }
    /// [`train`](Module::train) or [`eval`](Module::eval).
    fn set_training(&self, training: bool) {
        walk(self, &mut |item| {
            if let Item::Mode(mode) = item {
                mode.set(training);
            }
        });
    }
    /// Excludes the parameters whose path matches `pattern` (`*` stands for any text) from training. Returns how many.
    fn freeze(&self, pattern: &str) -> usize {
        set_trainable(self, pattern, false)
    }
    /// Undoes [`freeze`](Module::freeze).
    fn unfreeze(&self, pattern: &str) -> usize {
        set_trainable(self, pattern, true)
    }

    /// Moves parameters and buffers to `device`.
    fn to(self, device: &Device) -> Self
    where
        Self: Sized,
    {
        walk(&self, &mut |item| match item {
            Item::Param(_, p) => p.set(p.tensor().to_device(device)),
            Item::Buffer(_, b) => b.set(b.tensor().to_device(device)),
            _ => {}
        });
        self
    }
    /// Casts floating-point parameters and buffers to `dtype`.
    ///
    /// # Panics
    /// If `dtype` is not a floating-point one.
    #[track_caller]
    fn to_dtype(self, dtype: DType) -> Self
    where
        Self: Sized,
    {
        ensure!(dtype.is_float(), DType, "to_dtype", "a module's parameters are floating-point numbers, got {dtype}");
        walk(&self, &mut |item| match item {
            Item::Param(_, p) if p.tensor().dtype().is_float() => p.set(p.tensor().to_dtype(dtype)),
            Item::Buffer(_, b) if b.tensor().dtype().is_float() => b.set(b.tensor().to_dtype(dtype)),
            _ => {}
        });
        self
    }
    /// A table of the layers with their parameters' shapes and numbers, as Keras prints it.
    fn summary(&self) -> String {
        crate::summary::summary(self)
    }
}

/// A module that maps one value to one value: what `Sequential` is made of.
pub trait Layer: Module {
    /// The layer's output.
    #[track_caller]
    fn forward(&self, x: &Var) -> Var;
}
impl<L: Layer + ?Sized> Layer for Box<L> {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        (**self).forward(x)
    }
}

/// One thing that a walk through a module meets.
pub enum Item<'a> {
    /// A module (before its parts): its path, the name of its type, its settings.
    Enter(&'a str, &'static str, &'a dyn Fn() -> String),
    /// A parameter and its path.
    Param(&'a str, &'a Param),
    /// A buffer and its path.
    Buffer(&'a str, &'a Buffer),
    /// A train/eval flag.
    Mode(&'a Mode),
}

/// A walk through a module.
pub struct Visitor<'a> {
    path: String,
    meet: &'a mut dyn FnMut(Item<'_>),
}

impl Visitor<'_> {
    /// Visits the part `name`.
    pub fn field<M: Module + ?Sized>(&mut self, name: &str, part: &M) {
        let len = self.path.len();
        if len > 0 && !name.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
        (self.meet)(Item::Enter(&self.path, part.type_name(), &|| part.extra_repr()));
        part.visit(self);
        self.path.truncate(len);
    }
}

/// Shows every part of `module` to `meet`.
pub(crate) fn walk<M: Module + ?Sized>(module: &M, meet: &mut dyn FnMut(Item<'_>)) {
    module.visit(&mut Visitor { path: String::new(), meet });
}

fn set_trainable<M: Module + ?Sized>(module: &M, pattern: &str, trainable: bool) -> usize {
    let matching = module.named_parameters().into_iter().filter(|(name, _)| matches(pattern, name));
    matching.map(|(_, p)| p.set_requires_grad(trainable)).count()
}

/// Does `name` match `pattern`, in which `*` stands for any text?
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => {
            name.starts_with(head)
                && (head.len()..=name.len()).any(|i| name.is_char_boundary(i) && matches(rest, &name[i..]))
        }
    }
}

impl Module for Param {
    fn visit(&self, v: &mut Visitor<'_>) {
        (v.meet)(Item::Param(&v.path, self));
    }
}
impl Module for Buffer {
    fn visit(&self, v: &mut Visitor<'_>) {
        (v.meet)(Item::Buffer(&v.path, self));
    }
}
impl Module for Mode {
    fn visit(&self, v: &mut Visitor<'_>) {
        (v.meet)(Item::Mode(self));
    }
}
impl<M: Module> Module for Option<M> {
    fn visit(&self, v: &mut Visitor<'_>) {
        if let Some(m) = self {
            m.visit(v);
        }
    }
    fn type_name(&self) -> &'static str {
        self.as_ref().map_or("None", M::type_name)
    }
    fn extra_repr(&self) -> String {
        self.as_ref().map_or_else(String::new, M::extra_repr)
    }
}
impl<M: Module + ?Sized> Module for Box<M> {
    fn visit(&self, v: &mut Visitor<'_>) {
        (**self).visit(v);
    }
    fn type_name(&self) -> &'static str {
        (**self).type_name()
    }
    fn extra_repr(&self) -> String {
        (**self).extra_repr()
    }
}
impl<M: Module> Module for Vec<M> {
    fn visit(&self, v: &mut Visitor<'_>) {
        self.iter().enumerate().for_each(|(i, m)| v.field(&i.to_string(), m));
    }
    fn type_name(&self) -> &'static str {
        crate::describe::LIST
    }
}
impl<M: Module, const N: usize> Module for [M; N] {
    fn visit(&self, v: &mut Visitor<'_>) {
        self.iter().enumerate().for_each(|(i, m)| v.field(&i.to_string(), m));
    }
    fn type_name(&self) -> &'static str {
        crate::describe::LIST
    }
}
impl<A: Module, B: Module> Module for (A, B) {
    fn visit(&self, v: &mut Visitor<'_>) {
        v.field("0", &self.0);
        v.field("1", &self.1);
    }
    fn type_name(&self) -> &'static str {
        crate::describe::LIST
    }
}
/// Settings hold no parameters.
macro_rules! settings {
    ($($t:ty)*) => {$(
        impl Module for $t {
            fn visit(&self, _: &mut Visitor<'_>) {}
        }
    )*};
}
settings!(bool u8 i32 i64 isize usize u64 f32 f64 String &'static str DType Device);
impl<T> Module for std::marker::PhantomData<T> {
    fn visit(&self, _: &mut Visitor<'_>) {}
}
