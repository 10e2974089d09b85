//! Several dimensions as one.

use crate::Module;
use ferrograd_autograd::Var;

/// The dimensions `start_dim..=end_dim` as one: `[B, C, H, W]` → `[B, C·H·W]`.
#[derive(Module)]
#[module(extra_repr)]
pub struct Flatten {
    start_dim: isize,
    end_dim: isize,
}
layer!(Flatten);

impl Default for Flatten {
    fn default() -> Flatten {
        Flatten::new()
    }
}
impl Flatten {
    /// All dimensions but the first.
    pub fn new() -> Flatten {
        Flatten { start_dim: 1, end_dim: -1 }
    }
    /// The dimensions from `start` to `end`, both included; negative ones count from the end.
    pub fn dims(start: isize, end: isize) -> Flatten {
        Flatten { start_dim: start, end_dim: end }
    }
    /// The same elements, fewer dimensions.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        x.flatten_dims(self.start_dim, self.end_dim)
    }
    fn extra_repr(&self) -> String {
        format!("start_dim={}, end_dim={}", self.start_dim, self.end_dim)
    }
}
