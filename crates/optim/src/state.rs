//! Numbers in state dicts, and readable errors about what is not in them.

use ferrograd_nn::StateDict;
use ferrograd_tensor::{DType, Error, Result, Tensor};

/// A state dict that is being read: knows what it is called, and which entries nobody has asked for.
pub(crate) struct Reader<'a> {
    what: &'static str,
    state: &'a StateDict,
    seen: std::cell::RefCell<std::collections::HashSet<String>>,
}

impl<'a> Reader<'a> {
    pub fn new(what: &'static str, state: &'a StateDict) -> Self {
        Reader { what, state, seen: Default::default() }
    }
    pub fn fail<T>(&self, message: impl std::fmt::Display) -> Result<T> {
        Err(Error::format(format!("{}: state dict", self.what), message))
    }
    pub fn get(&self, name: &str) -> Option<&'a Tensor> {
        self.seen.borrow_mut().insert(name.to_string());
        self.state.get(name)
    }
    fn scalar(&self, name: &str) -> Result<&'a Tensor> {
        match self.get(name) {
            Some(t) if t.numel() == 1 => Ok(t),
            Some(t) => self.fail(format!("{name} must be one number, it has shape {}", t.shape())),
            None => self.fail(format!("{name} is missing")),
        }
    }
    pub fn float(&self, name: &str) -> Result<f64> {
        Ok(self.scalar(name)?.item::<f64>())
    }
    pub fn count(&self, name: &str) -> Result<u64> {
        let t = self.scalar(name)?;
        let x = if t.dtype() == DType::I64 { t.item::<i64>() } else { -1 };
        if x >= 0 { Ok(x as u64) } else { self.fail(format!("{name} must be an i64 ≥ 0, it is {} {t}", t.dtype())) }
    }
    pub fn floats(&self, name: &str, len: usize) -> Result<Vec<f64>> {
        match self.get(name) {
            Some(t) if *t.shape() == [len] => Ok(t.to_f64_vec()),
            Some(t) => self.fail(format!("{name} must have shape [{len}], it has {}", t.shape())),
            None => self.fail(format!("{name} is missing")),
        }
    }
    /// Every entry must have been asked for.
    pub fn finish(&self) -> Result<()> {
        let seen = self.seen.borrow();
        match self.state.iter().find(|(name, _)| !seen.contains(*name)) {
            Some((name, _)) => self.fail(format!("unexpected entry {name}")),
            None => Ok(()),
        }
    }
}

/// A count as an entry.
pub(crate) fn count(x: u64) -> Tensor {
    Tensor::scalar(x as i64)
}
