//! The tests of `ferrograd-autograd` with a card as the default device.
#![allow(clippy::duplicate_mod, clippy::module_inception)] // each file is a program of its own in its own crate

#[macro_use]
#[path = "default.rs"]
mod default;

suites! {
    attention "../../../autograd/tests/attention.rs"
    checkpoint "../../../autograd/tests/checkpoint.rs"
    conv "../../../autograd/tests/conv.rs"
    cross_entropy "../../../autograd/tests/cross_entropy.rs"
    einsum "../../../autograd/tests/einsum.rs"
    elementwise "../../../autograd/tests/elementwise.rs"
    engine "../../../autograd/tests/engine.rs"
    every_op "../../../autograd/tests/every_op.rs"
    gated "../../../autograd/tests/gated.rs"
    indexing "../../../autograd/tests/indexing.rs"
    interpolate "../../../autograd/tests/interpolate.rs"
    joining "../../../autograd/tests/joining.rs"
    linear "../../../autograd/tests/linear.rs"
    normalisation "../../../autograd/tests/normalisation.rs"
    pool "../../../autograd/tests/pool.rs"
    recurrent "../../../autograd/tests/recurrent.rs"
    reductions "../../../autograd/tests/reductions.rs"
    rope "../../../autograd/tests/rope.rs"
    softmax "../../../autograd/tests/softmax.rs"
    views "../../../autograd/tests/views.rs"
}
