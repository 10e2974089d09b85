//! The unsafe core (storage, SIMD dispatch, matrix kernels) under a checker of memory errors.

use crate::shell::{self, Outcome, cargo};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

pub fn run_asan() -> Outcome {
    // rustup's cargo proxy picks the toolchain; CARGO names the stable one that runs this program.
    let mut command = Command::new("cargo");
    command.current_dir(crate::shell::root()).args(["+nightly", "test", "-p", "ferrograd-tensor", "--target", TARGET]);
    command.args([
        "--target-dir",
        "target/asan",
        "--lib",
        "--test",
        "elementwise",
        "--test",
        "matmul",
        "--test",
        "views",
    ]);
    command
        .env("RUSTFLAGS", "-Zsanitizer=address")
        .env("PROPTEST_CASES", "8")
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN");
    shell::run(&mut command)
}

pub fn run_valgrind() -> Outcome {
    let mut command = cargo();
    command.args(["test", "-p", "ferrograd-tensor", "--lib", "--", "storage", "strided", "gemm"]);
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "valgrind --error-exitcode=1 --quiet");
    // valgrind knows no AVX-512.
    command.env("FERROGRAD_SIMD", "avx2").env("PROPTEST_CASES", "4");
    shell::run(&mut command)
}

pub fn run() -> Outcome {
    let nightly = Command::new("cargo").args(["+nightly", "--version"]).output().is_ok_and(|o| o.status.success());
    if nightly {
        println!("AddressSanitizer, on the nightly toolchain");
        run_asan()
    } else {
        println!("valgrind, as there is no nightly toolchain");
        run_valgrind()
    }
}
