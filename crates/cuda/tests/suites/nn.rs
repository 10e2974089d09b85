//! The tests of `ferrograd-nn` with a card as the default device.

#[path = "default.rs"]
mod default;

macro_rules! suites {
    ($($name:ident $path:literal)*) => {
        $(#[path = $path] mod $name;)*
    };
}
suites! {
    golden "../../../nn/tests/golden.rs"
    init "../../../nn/tests/init.rs"
    layers "../../../nn/tests/layers.rs"
    losses "../../../nn/tests/losses.rs"
    module "../../../nn/tests/module.rs"
}
