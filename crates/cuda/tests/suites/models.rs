//! The tests of `ferrograd-models` with a card as the default device.

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
