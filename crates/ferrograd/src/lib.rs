//! A deep-learning framework in Rust, written from scratch.
//!
//! `use ferrograd::prelude::*` is all that an application needs.
//!
//! ```
//! use ferrograd::prelude::*;
//!
//! #[derive(Module)]
//! struct Mlp { hidden: Linear, output: Linear }
//!
//! let model = Mlp { hidden: Linear::new(2, 16), output: Linear::new(16, 1) };
//! let mut adam = Adam::new(model.parameters()).lr(0.05);
//! let x = Var::from(Tensor::new([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0f32]]));
//! let y = Tensor::new([[0.0], [1.0], [1.0], [0.0f32]]);
//! let mut last = f32::INFINITY;
//! for _ in 0..300 {
//!     let logits = model.output.forward(&model.hidden.forward(&x).tanh());
//!     let loss = bce_with_logits(&logits, &y);
//!     adam.step(&loss.backward());
//!     last = loss.item();
//! }
//! assert!(last < 0.1, "{last}");
//! ```
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod devices;

pub use devices::device;
pub use ferrograd_autograd as autograd;
#[cfg(feature = "cuda")]
pub use ferrograd_cuda as cuda;
pub use ferrograd_models as models;
pub use ferrograd_nn as nn;
pub use ferrograd_optim as optim;
pub use ferrograd_tensor as tensor;

pub use ferrograd_tensor::profile::profile;
pub use ferrograd_tensor::{Error, Result, catch, on_pool, s};

/// Everything that an application needs, under its usual name.
pub mod prelude {
    pub use crate::devices::CudaDevice;
    pub use ferrograd_autograd::*;
    pub use ferrograd_nn::*;
    pub use ferrograd_optim::*;
    pub use ferrograd_tensor::random::{manual_seed, with_seed};
    pub use ferrograd_tensor::{Axes, DType, Device, Error, INFER, Shape, Tensor, catch, s};
}

/// The README's programs, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
