//! Tensors: numbers, their shapes and the devices that hold them. This crate knows no gradient.
#![warn(missing_docs)]

pub mod cpu;
