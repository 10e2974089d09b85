//! The unsafe core (storage, SIMD dispatch, matrix kernels) under AddressSanitizer.

use crate::shell::{self, Outcome};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The unit tests of `ferrograd-tensor` and the integration tests whose kernels are written with `unsafe`.
pub fn run() -> Outcome {
    let mut command = Command::new("cargo");
    command.current_dir(shell::root());
    command.args(["test", "-p", "ferrograd-tensor", "--target", TARGET, "--target-dir", "target/asan", "--lib"]);
    for test in ["elementwise", "matmul", "views"] {
        command.args(["--test", test]);
    }
    // The sanitizer's runtime comes with every stable toolchain on Linux; only the flag that asks for it is still
    // marked as unstable, and RUSTC_BOOTSTRAP lets the stable compiler take it.
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address").env("PROPTEST_CASES", "8");
    shell::run(&mut command)
}
