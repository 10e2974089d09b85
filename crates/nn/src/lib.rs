//! Layers, losses and initialisers.
//!
//! A model is a plain struct whose fields are layers; `#[derive(Module)]` finds its parameters by the fields' names,
//! which are PyTorch's for the same structure, so that published weights load by name.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

// `#[derive(Module)]` writes `::ferrograd::nn::…`, which is this crate.
extern crate self as ferrograd;
#[doc(hidden)]
pub mod nn {
    pub use crate::*;
}

mod describe;
pub mod init;
pub mod layers;
pub mod losses;
mod module;
mod param;
mod state_dict;
mod summary;

pub use ferrograd_macros::Module;
pub use layers::*;
pub use losses::*;
pub use module::{Item, Layer, Module, Visitor};
pub use param::{Buffer, Mode, Param};
pub use state_dict::{LoadReport, StateDict};
