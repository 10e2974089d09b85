//! The CUDA backend's tests on a machine without a card: the kernels themselves, compiled by g++ and run by the emulator.

use crate::shell::{Outcome, cargo, root, run};
use std::process::Command;

/// Builds the emulator and runs its own tests, the backend's, the other crates' suites with a card as the default device, and
/// programs; only tests with `filter` in their names, if it is given.
pub fn run_suites(filter: Option<&str>) -> Outcome {
    let target = root().join("target");
    let libraries = ferrograd_cuda_emulator::build(&target.join("cuda-emulator"))?;
    let mut emulator = cargo();
    emulator.args(["test", "-p", "ferrograd-cuda-emulator", "--"]).args(filter).arg("--include-ignored");
    run(&mut emulator)?;
    let on_the_card = |command: &mut Command| {
        command.env("LD_LIBRARY_PATH", &libraries).env("FERROGRAD_NVRTC", &libraries);
        run(command.env("FERROGRAD_CACHE", target.join("cuda-emulator/cache")))
    };
    let suites = ["test", "-p", "ferrograd-cuda", "--features", "card", "--tests", "--"];
    on_the_card(cargo().args(suites).args(filter).arg("--include-ignored"))?;
    if filter.is_some() {
        return Ok(());
    }
    let examples = ["run", "-p", "ferrograd-examples", "--features", "cuda"];
    on_the_card(cargo().args(examples).args(["--example", "06_cuda_kernel"]))?;
    let tiny = "--preset tiny --layers 1 --width 16 --heads 2 --block 8 --batch 2 --steps 3 --warmup 1 --length 10";
    let text = target.join("cuda-emulator/text.txt");
    std::fs::write(&text, "To be, or not to be, that is the question. ".repeat(20))?;
    let gpt = |device: &str| {
        let out = target.join(format!("cuda-emulator/gpt-{device}"));
        let mut command = cargo();
        command.args(examples).args(["--bin", "gpt", "--", "--device", device]).args(tiny.split(' '));
        on_the_card(command.arg("--text").arg(&text).arg("--out").arg(&out))?;
        Ok::<_, Box<dyn std::error::Error>>(std::fs::read_to_string(out.join("sample.txt"))?)
    };
    if gpt("cpu")? == gpt("cuda")? { Ok(()) } else { Err("the GPT writes another text on the card than on the CPU".into()) }
}
