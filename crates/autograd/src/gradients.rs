//! What `backward` returns.

use crate::var::Var;
use ferrograd_tensor::{Tensor, fail};
use std::collections::HashMap;

/// The identity under which a gradient is found.
pub type Key = (u64, usize);

/// What a gradient can be looked up by: a [`Var`], or a layer's parameter.
pub trait Keyed {
    /// Its identity; `None` for a constant.
    fn key(&self) -> Option<Key>;
}
impl Keyed for Var {
    fn key(&self) -> Option<Key> {
        self.source.key()
    }
}
impl<K: Keyed> Keyed for &K {
    fn key(&self) -> Option<Key> {
        (**self).key()
    }
}

/// The gradient of a scalar with respect to every leaf that it depends on.
#[derive(Default)]
pub struct Gradients {
    by_key: HashMap<Key, Tensor>,
}

impl Gradients {
    /// The gradient with respect to `x`, if the loss depends on it.
    pub fn get(&self, x: impl Keyed) -> Option<&Tensor> {
        self.by_key.get(&x.key()?)
    }
    /// The gradient with respect to `x`.
    ///
    /// # Panics
    /// If there is none: `x` is a constant, the loss does not depend on it, or it is neither a leaf nor was its
    /// gradient kept with [`Var::retain_grad`].
    #[track_caller]
    pub fn wrt(&self, x: impl Keyed) -> &Tensor {
        match self.get(&x) {
            Some(g) => g,
            None if x.key().is_none() => {
                fail!(Derivative, "gradients", "asked for the gradient of a constant (make it with Var::leaf)")
            }
            None => fail!(
                Derivative,
                "gradients",
                "the loss does not depend on this value, or it is no leaf and retain_grad was not called on it"
            ),
        }
    }
    /// Takes the gradient with respect to `x` out.
    pub fn remove(&mut self, x: impl Keyed) -> Option<Tensor> {
        self.by_key.remove(&x.key()?)
    }
    /// Puts a gradient in, in place of the one that was there: for clipping, averaging over devices and the like.
    pub fn insert(&mut self, x: impl Keyed, gradient: Tensor) {
        if let Some(key) = x.key() {
            self.by_key.insert(key, gradient);
        }
    }
    /// Adds another step's gradients: gradient accumulation over several small batches.
    pub fn add(&mut self, other: Gradients) {
        for (key, g) in other.by_key {
            match self.by_key.entry(key) {
                std::collections::hash_map::Entry::Occupied(mut e) => e.get_mut().add_assign(&g),
                std::collections::hash_map::Entry::Vacant(e) => {
                    e.insert(g);
                }
            }
        }
    }
    /// Number of leaves that have a gradient.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }
    /// Does nothing have a gradient?
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
    /// Every gradient, in no particular order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        self.by_key.values_mut()
    }
}

impl FromIterator<(Key, Tensor)> for Gradients {
    fn from_iter<I: IntoIterator<Item = (Key, Tensor)>>(iter: I) -> Self {
        Gradients { by_key: iter.into_iter().collect() }
    }
}
