//! The tests of `ferrograd-optim` with a card as the default device.
#![allow(clippy::duplicate_mod, clippy::module_inception)] // each file is a program of its own in its own crate

#[macro_use]
#[path = "default.rs"]
mod default;

suites! {
    behaviour "../../../optim/tests/behaviour.rs"
    golden "../../../optim/tests/golden.rs"
    resume "../../../optim/tests/resume.rs"
}
