//! The CUDA backend's tests on a machine without a card: the kernels themselves, compiled by g++ and run by the emulator.

use crate::shell::{Outcome, cargo, root, run};

/// Test programs of kernels whose threads work without waiting for each other, which are run under several schedules.
const ASYNCHRONOUS: [&str; 1] = ["matmul"];
/// What a schedule leaves to chance comes from a seed, or asynchronous copies are as late as their wait allows.
const SCHEDULES: [&str; 4] = ["1", "2", "3", "lazy"];

/// Builds the emulator and runs the tests that need a card, `filter` among them if it is given.
pub fn run_suites(filter: Option<&str>) -> Outcome {
    let target = root().join("target");
    let libraries = ferrograd_cuda_emulator::build(&target.join("cuda-emulator"))?;
    let run_tests = |which: &[&str], schedule: &str| {
        let mut tests = cargo();
        tests.args(["test", "-p", "ferrograd-cuda"]).args(which).arg("--").args(filter).arg("--include-ignored");
        tests.env("LD_LIBRARY_PATH", &libraries).env("FERROGRAD_NVRTC", &libraries);
        tests.env("FERROGRAD_CACHE", target.join("cuda-emulator/cache")).env("FERROGRAD_EMULATOR_SEED", schedule);
        println!("the emulator's schedule: {}", if schedule.is_empty() { "in order" } else { schedule });
        run(&mut tests)
    };
    run_tests(&["--tests"], "")?;
    let asynchronous: Vec<&str> = ASYNCHRONOUS.iter().flat_map(|&test| ["--test", test]).collect();
    SCHEDULES.iter().try_for_each(|schedule| run_tests(&asynchronous, schedule))
}
