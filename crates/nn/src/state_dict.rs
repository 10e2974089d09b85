//! Parameters and buffers by name.

use crate::module::{Item, Module, walk};
use ferrograd_tensor::{Error, Result, Shape, Tensor, load_safetensors, save_safetensors};
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

/// Tensors by name, in the order of declaration.
///
/// ```
/// use ferrograd_nn::{Linear, Module, StateDict};
/// # let path = std::env::temp_dir().join(format!("ferrograd-state-{}.safetensors", std::process::id()));
/// let layer = Linear::new(3, 2);
/// layer.state_dict().save(&path)?;
/// layer.load_state_dict(&StateDict::load(&path)?, true)?;
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), ferrograd_tensor::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct StateDict {
    entries: Vec<(String, Tensor)>,
    index: HashMap<String, usize>,
}

impl StateDict {
    /// Without entries.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds an entry, or replaces the one of that name.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        let name = name.into();
        match self.index.get(&name) {
            Some(&i) => self.entries[i].1 = tensor,
            None => {
                self.index.insert(name.clone(), self.entries.len());
                self.entries.push((name, tensor));
            }
        }
    }
    /// Writes the entries as a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// As [`save_safetensors`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        save_safetensors(path, self.iter(), &Default::default())
    }
    /// The tensors of a safetensors file, in the order of their names.
    ///
    /// # Errors
    /// As [`load_safetensors`].
    pub fn load(path: impl AsRef<Path>) -> Result<StateDict> {
        Ok(load_safetensors(path)?.tensors.into_iter().collect())
    }
    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&i| &self.entries[i].1)
    }
    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(n, t)| (n.as_str(), t))
    }
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Are there no entries?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// The entries under new names; `None` drops one.
    pub fn rename(self, mut f: impl FnMut(&str) -> Option<String>) -> StateDict {
        self.entries.into_iter().filter_map(|(n, t)| Some((f(&n)?, t))).collect()
    }
    /// The entries whose name starts with `prefix`, without it.
    pub fn strip_prefix(&self, prefix: &str) -> StateDict {
        self.iter().filter_map(|(n, t)| Some((n.strip_prefix(prefix)?.to_string(), t.clone()))).collect()
    }
}
impl FromIterator<(String, Tensor)> for StateDict {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(iter: I) -> Self {
        let mut out = StateDict::new();
        iter.into_iter().for_each(|(n, t)| out.insert(n, t));
        out
    }
}
impl fmt::Debug for StateDict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(n, t)| (n, format!("{} {}", t.shape(), t.dtype())))).finish()
    }
}

/// What a load found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// In the module, not in the state.
    pub missing: Vec<String>,
    /// In the state, not in the module.
    pub unexpected: Vec<String>,
    /// In both, with different shapes: name, the module's shape, the state's.
    pub mismatched: Vec<(String, Shape, Shape)>,
}
impl LoadReport {
    /// Did everything fit?
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }
}
impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let list = |names: &[String]| match names.len() {
            0..=8 => names.join(", "),
            n => format!("{}, … ({n} in all)", names[..8].join(", ")),
        };
        let mut parts = Vec::new();
        if !self.missing.is_empty() {
            parts.push(format!("missing: {}", list(&self.missing)));
        }
        if !self.unexpected.is_empty() {
            parts.push(format!("unexpected: {}", list(&self.unexpected)));
        }
        if !self.mismatched.is_empty() {
            let texts: Vec<String> =
                self.mismatched.iter().map(|(n, want, have)| format!("{n} is {want}, the state has {have}")).collect();
            parts.push(format!("of another shape: {}", list(&texts)));
        }
        if parts.is_empty() { f.write_str("everything fits") } else { f.write_str(&parts.join("; ")) }
    }
}

pub(crate) fn load<M: Module + ?Sized>(module: &M, state: &StateDict, strict: bool) -> Result<LoadReport> {
    let mut report = LoadReport::default();
    let mut known = std::collections::HashSet::new();
    let mut loaded_ids = std::collections::HashSet::new();
    let mut absent = Vec::new();
    walk(module, &mut |item| {
        let (path, shape, id) = match item {
            Item::Param(path, p) => (path, p.tensor().shape().clone(), Some(p.id())),
            Item::Buffer(path, b) => (path, b.tensor().shape().clone(), None),
            _ => return,
        };
        known.insert(path.to_string());
        match state.get(path) {
            None => absent.push((path.to_string(), id)),
            Some(t) if *t.shape() != shape => report.mismatched.push((path.to_string(), shape, t.shape().clone())),
            Some(_) => loaded_ids.extend(id),
        }
    });
    // A tied parameter that came under another of its names is not missing.
    let missing = absent.into_iter().filter(|(_, id)| id.is_none_or(|id| !loaded_ids.contains(&id)));
    report.missing = missing.map(|(name, _)| name).collect();
    report.unexpected = state.iter().filter(|(n, _)| !known.contains(*n)).map(|(n, _)| n.to_string()).collect();
    if strict && !report.is_clean() {
        return Err(Error::format("load_state_dict", &report));
    }
    let fit = |old: Tensor, new: &Tensor| {
        (old.shape() == new.shape()).then(|| new.to_dtype(old.dtype()).to_device(&old.device()).copy())
    };
    walk(module, &mut |item| match item {
        Item::Param(path, p) => {
            if let Some(t) = state.get(path).and_then(|t| fit(p.tensor(), t)) {
                p.set(t);
            }
        }
        Item::Buffer(path, b) => {
            if let Some(t) = state.get(path).and_then(|t| fit(b.tensor(), t)) {
                b.set(t);
            }
        }
        _ => {}
    });
    Ok(report)
}
