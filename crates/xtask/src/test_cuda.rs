//! The CUDA backend's tests on a machine without a card: the kernels themselves, compiled by g++ and run by the emulator.

use crate::shell::{Outcome, cargo, root, run};
use std::process::Command;

/// Test programs of kernels whose threads work without waiting for each other, which are run under several schedules.
const ASYNCHRONOUS: [&str; 4] = ["attention", "ladder", "matmul", "recurrent"];
/// What a schedule leaves to chance comes from a seed, or asynchronous copies are as late as their wait allows.
const SCHEDULES: [&str; 4] = ["1", "2", "3", "lazy"];

/// Builds the emulator and runs its own tests, the backend's, the other crates' suites with a card as the default device, and
/// programs; only tests with `filter` in their names, if it is given.
pub fn run_suites(filter: Option<&str>) -> Outcome {
    let target = root().join("target");
    let libraries = ferrograd_cuda_emulator::build(&target.join("cuda-emulator"))?;
    let on_the_card = |schedule: &str, command: &mut Command| {
        command.env("LD_LIBRARY_PATH", &libraries).env("FERROGRAD_NVRTC", &libraries);
        command.env("FERROGRAD_CACHE", target.join("cuda-emulator/cache")).env("FERROGRAD_EMULATOR_SEED", schedule);
        run(command)
    };
    let test = |schedule: &str, which: &[&str]| {
        println!("the emulator's schedule: {}", if schedule.is_empty() { "in order" } else { schedule });
        let mut command = cargo();
        command.args(["test", "-p", "ferrograd-cuda", "--features", "card"]).args(which);
        on_the_card(schedule, command.args(filter))
    };
    run(cargo().args(["test", "-p", "ferrograd-cuda-emulator", "--features", "compiler"]).args(filter))?;
    test("", &["--tests"])?;
    let asynchronous: Vec<&str> = ASYNCHRONOUS.iter().flat_map(|&test| ["--test", test]).collect();
    SCHEDULES.iter().try_for_each(|schedule| test(schedule, &asynchronous))?;
    if filter.is_some() { Ok(()) } else { programs(|command| on_the_card("", command)) }
}

/// The example of a kernel of one's own, and a tiny GPT, which has to write on the card what it writes on the CPU.
fn programs(on_the_card: impl Fn(&mut Command) -> Outcome) -> Outcome {
    let folder = root().join("target/cuda-emulator");
    let examples = ["run", "-p", "ferrograd-examples", "--features", "cuda"];
    on_the_card(cargo().args(examples).args(["--example", "06_cuda_kernel"]))?;
    let tiny = "--preset tiny --layers 1 --width 16 --heads 2 --block 8 --batch 2 --steps 3 --warmup 1 --length 10";
    let text = folder.join("text.txt");
    std::fs::write(&text, "To be, or not to be, that is the question. ".repeat(20))?;
    let sample = |device: &str| {
        let out = folder.join(format!("gpt-{device}"));
        let mut gpt = cargo();
        gpt.args(examples).args(["--bin", "gpt", "--", "--device", device]).args(tiny.split(' '));
        on_the_card(gpt.arg("--text").arg(&text).arg("--out").arg(&out))?;
        Ok::<_, Box<dyn std::error::Error>>(std::fs::read_to_string(out.join("sample.txt"))?)
    };
    if sample("cpu")? == sample("cuda")? {
        Ok(())
    } else {
        Err("the GPT writes another text on the card than on the CPU".into())
    }
}
