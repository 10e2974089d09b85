//! The emulator's own tests. Each starts itself again with the stand-ins on its library path.

#[macro_use]
mod common;
mod driver;
mod hopper;
mod pipelines;
mod shim;
mod speed;
mod streams;
mod tensor_core;
