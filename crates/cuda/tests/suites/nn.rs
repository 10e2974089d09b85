//! The tests of `ferrograd-nn` with a card as the default device.
#![allow(clippy::duplicate_mod, clippy::module_inception)] // each file is a program of its own in its own crate

#[macro_use]
#[path = "default.rs"]
mod default;

suites! {
    golden "../../../nn/tests/golden.rs"
    init "../../../nn/tests/init.rs"
    layers "../../../nn/tests/layers.rs"
    losses "../../../nn/tests/losses.rs"
    module "../../../nn/tests/module.rs"
}
