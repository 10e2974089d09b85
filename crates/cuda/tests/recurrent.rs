//! LSTM, GRU and RNN on the card against the CPU, forward and backward: states that one block holds, that several share and that no
//! blocks hold; every option, dtype and layout.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;
mod sequences;

use ferrograd_tensor::DType;
use layouts::Random;
use sequences::{Case, KINDS, Kind, check_all};

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

fn every_kind() -> Vec<(Kind, DType)> {
    KINDS.into_iter().flat_map(|kind| FLOATS.map(|dtype| (kind, dtype))).collect()
}

/// `T B E H`.
#[test]
fn states_of_one_block() {
    let shapes = [[5, 3, 7, 5], [5, 17, 7, 33], [1, 3, 1, 64], [5, 1, 1, 1], [4, 9, 2, 8], [3, 5, 64, 64]];
    check_all(1, &shapes, &every_kind());
}

/// On tensor cores: whole and torn fragments, weights in registers alone and in shared memory too.
#[test]
fn half_types() {
    let kinds: Vec<_> = every_kind().into_iter().filter(|(_, dtype)| dtype.is_half()).collect();
    check_all(6, &[[3, 17, 5, 32], [4, 1, 3, 40], [2, 9, 3, 128], [2, 8, 8, 16]], &kinds);
}

#[test]
fn states_of_several_blocks() {
    check_all(2, &[[3, 3, 7, 130], [2, 17, 1, 130], [3, 2, 3, 100], [2, 2, 1, 250]], &every_kind());
}

#[test]
fn states_of_no_blocks() {
    check_all(3, &[[3, 3, 2, 530]], &every_kind());
}

#[test]
fn nothing() {
    check_all(
        4,
        &[[0, 3, 7, 5], [0, 3, 7, 130], [5, 0, 7, 5], [5, 3, 0, 5], [5, 3, 7, 0], [0, 0, 0, 0]],
        &every_kind(),
    );
}

#[test]
fn the_same_bits_twice() {
    let random = &mut Random(5);
    for (kind, h) in KINDS.into_iter().flat_map(|kind| [(kind, 20), (kind, 130)]) {
        for dtype in [DType::F32, DType::BF16] {
            let case = Case::new(random, kind, [3, 6, 4, h], dtype).there();
            let [once, twice] = [0; 2].map(|_| case.run(None));
            for ((name, a), (_, b)) in once.iter().zip(&twice) {
                assert_eq!(a.to_f64_vec(), b.to_f64_vec(), "{kind:?} {h} {dtype} {name}");
            }
        }
    }
}
