//! The CUDA backend's tests on a machine without a card: the kernels themselves, compiled by g++ and run by the emulator.

use crate::shell::{Outcome, cargo, root, run};

/// Builds the emulator and runs the tests that need a card, `filter` among them if it is given.
pub fn run_suites(filter: Option<&str>) -> Outcome {
    let target = root().join("target");
    let libraries = ferrograd_cuda_emulator::build(&target.join("cuda-emulator"))?;
    let mut tests = cargo();
    tests.args(["test", "-p", "ferrograd-cuda", "--tests", "--"]).args(filter).arg("--include-ignored");
    tests.env("LD_LIBRARY_PATH", &libraries).env("FERROGRAD_NVRTC", &libraries);
    tests.env("FERROGRAD_CACHE", target.join("cuda-emulator/cache"));
    run(&mut tests)
}
