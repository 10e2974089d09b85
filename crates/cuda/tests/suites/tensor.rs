//! The tests of `ferrograd-tensor` with a card as the default device.
#![allow(clippy::duplicate_mod, clippy::module_inception)] // each file is a program of its own in its own crate

#[macro_use]
#[path = "default.rs"]
mod default;

suites! {
    activation "../../../tensor/tests/activation.rs"
    attention "../../../tensor/tests/attention.rs"
    conv "../../../tensor/tests/conv.rs"
    cross_entropy "../../../tensor/tests/cross_entropy.rs"
    einsum "../../../tensor/tests/einsum.rs"
    elementwise "../../../tensor/tests/elementwise.rs"
    gated "../../../tensor/tests/gated.rs"
    golden "../../../tensor/tests/golden.rs"
    indexing "../../../tensor/tests/indexing.rs"
    interpolate "../../../tensor/tests/interpolate.rs"
    io "../../../tensor/tests/io.rs"
    joining "../../../tensor/tests/joining.rs"
    matmul "../../../tensor/tests/matmul.rs"
    normalisation "../../../tensor/tests/normalisation.rs"
    pool "../../../tensor/tests/pool.rs"
    random "../../../tensor/tests/random.rs"
    recurrent "../../../tensor/tests/recurrent.rs"
    reductions "../../../tensor/tests/reductions.rs"
    rope "../../../tensor/tests/rope.rs"
    sorting "../../../tensor/tests/sorting.rs"
    views "../../../tensor/tests/views.rs"
}
