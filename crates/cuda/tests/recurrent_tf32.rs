//! Recurrent networks of f32 whose products' operands are rounded to TF32. A program of its own: the precision is the whole program's.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;
mod sequences;

use ferrograd_tensor::{DType, MatmulPrecision, set_matmul_precision};
use sequences::{KINDS, check_all};

/// States of one block, with weights in registers alone and in shared memory too, and of several.
#[test]
fn states_in_tf32() {
    set_matmul_precision(MatmulPrecision::Tf32);
    let shapes = [[4, 9, 3, 40], [3, 17, 5, 64], [2, 1, 2, 5], [2, 3, 2, 130]];
    check_all(1, &shapes, &KINDS.map(|kind| (kind, DType::F32)));
}
