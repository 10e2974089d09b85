//! The tests of `ferrograd-models` with a card as the default device.
#![allow(clippy::duplicate_mod, clippy::module_inception)] // each file is a program of its own in its own crate

#[macro_use]
#[path = "default.rs"]
mod default;

suites! {
    golden "../../../models/tests/golden.rs"
    models "../../../models/tests/models.rs"
}
