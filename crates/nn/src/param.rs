//! What a module holds: parameters, buffers and the train/eval flag.

use ferrograd_autograd::{Key, Keyed, Leaf, Var};
use ferrograd_tensor::Tensor;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, RwLockWriteGuard};

/// A leaf that an optimiser may update. Clones are the same parameter: that is how weights are tied.
#[derive(Clone)]
pub struct Param(Arc<Inner>);

struct Inner {
    leaf: Arc<Leaf>,
    value: RwLock<Tensor>,
    trainable: AtomicBool,
}

impl Param {
    /// A trainable parameter that starts with `value`.
    pub fn new(value: Tensor) -> Param {
        let trainable = AtomicBool::new(value.dtype().is_float());
        Param(Arc::new(Inner { leaf: Arc::new(Leaf::new()), value: RwLock::new(value), trainable }))
    }
    /// The parameter in an expression: a leaf whose gradient is found under this parameter (a constant, if frozen).
    pub fn var(&self) -> Var {
        match self.requires_grad() {
            true => Var::from_leaf(&self.0.leaf, self.tensor()),
            false => Var::constant(self.tensor()),
        }
    }
    /// Its current value. Holding it makes the next update copy.
    pub fn tensor(&self) -> Tensor {
        self.0.value.read().unwrap_or_else(|e| e.into_inner()).clone()
    }
    /// Replaces the value.
    pub fn set(&self, value: Tensor) {
        *self.write() = value;
    }
    /// Changes the value, in place where nobody else holds it.
    pub fn update<T>(&self, change: impl FnOnce(&mut Tensor) -> T) -> T {
        change(&mut self.write())
    }
    /// The value, to be changed while nobody else reads it.
    pub fn write(&self) -> RwLockWriteGuard<'_, Tensor> {
        self.0.value.write().unwrap_or_else(|e| e.into_inner())
    }
    /// Is it trained?
    pub fn requires_grad(&self) -> bool {
        self.0.trainable.load(Ordering::Relaxed)
    }
    /// Trains it or freezes it.
    pub fn set_requires_grad(&self, trainable: bool) {
        self.0.trainable.store(trainable && self.tensor().dtype().is_float(), Ordering::Relaxed);
    }
    /// Do the two share one value?
    pub fn is(&self, other: &Param) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
    /// Identity, the same for tied parameters.
    pub fn id(&self) -> Key {
        Keyed::key(&Var::from_leaf(&self.0.leaf, Tensor::scalar(0.0f32))).expect("a leaf has a key")
    }
}
impl From<Tensor> for Param {
    fn from(value: Tensor) -> Param {
        Param::new(value)
    }
}
impl From<&Param> for Param {
    /// The same parameter: how weights are tied.
    fn from(param: &Param) -> Param {
        param.clone()
    }
}
impl Keyed for Param {
    fn key(&self) -> Option<Key> {
        Some(self.id())
    }
}
impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let t = self.tensor();
        write!(f, "Param {} {} on {}", t.shape(), t.dtype(), t.device())
    }
}

/// A tensor that belongs to the state of a module but is not trained: running statistics, position tables.
#[derive(Clone)]
pub struct Buffer(Arc<RwLock<Tensor>>);

impl Buffer {
    /// A buffer that starts with `value`.
    pub fn new(value: Tensor) -> Buffer {
        Buffer(Arc::new(RwLock::new(value)))
    }
    /// Its current value.
    pub fn tensor(&self) -> Tensor {
        self.0.read().unwrap_or_else(|e| e.into_inner()).clone()
    }
    /// Replaces the value.
    pub fn set(&self, value: Tensor) {
        *self.0.write().unwrap_or_else(|e| e.into_inner()) = value;
    }
    /// Changes the value, in place where nobody else holds it.
    pub fn update<T>(&self, change: impl FnOnce(&mut Tensor) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(|e| e.into_inner()))
    }
}
impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let t = self.tensor();
        write!(f, "Buffer {} {} on {}", t.shape(), t.dtype(), t.device())
    }
}

/// Whether a module is being trained: what dropout and batch norm ask. Starts in training, as in PyTorch.
#[derive(Debug)]
pub struct Mode(AtomicBool);

impl Mode {
    /// In training.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Mode {
        Mode(AtomicBool::new(true))
    }
    /// Is the module being trained?
    pub fn training(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
    /// Switches it.
    pub fn set(&self, training: bool) {
        self.0.store(training, Ordering::Relaxed)
    }
}
