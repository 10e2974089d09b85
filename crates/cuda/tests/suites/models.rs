//! The tests of `ferrograd-models` with a card as the default device.
#![allow(clippy::duplicate_mod, clippy::module_inception)] // each file is a program of its own in its own crate

#[path = "default.rs"]
mod default;

macro_rules! suites {
    ($($name:ident $path:literal)*) => {
        $(#[path = $path] mod $name;)*
    };
}
suites! {
    golden "../../../models/tests/golden.rs"
    models "../../../models/tests/models.rs"
}
