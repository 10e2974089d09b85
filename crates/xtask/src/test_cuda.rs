//! The CUDA backend's tests on a machine without a card: the kernels themselves, compiled by g++ and run by the emulator.

use crate::shell::{Outcome, cargo, root, run};
use std::path::Path;
use std::process::Command;

/// Test programs whose kernels are others on Hopper, which the emulated card is, than on cards before it.
const PORTABLE: [&str; 4] = ["attention", "epilogue", "ladder", "matmul"];
/// In what order threads and streams go on that do not wait for each other: as a seed says, or asynchronous copies as late as
/// their wait allows.
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
    let test = |architecture: &str, schedule: &str, which: &[&str]| {
        let order = if schedule.is_empty() { "in order" } else { schedule };
        println!("the emulated card's compute capability: {architecture}; its schedule: {order}");
        let mut command = cargo();
        command.args(["test", "-p", "ferrograd-cuda", "--features", "card"]).args(which);
        on_the_card(schedule, command.args(filter).env("FERROGRAD_EMULATOR_ARCH", architecture))
    };
    run(cargo().args(["test", "-p", "ferrograd-cuda-emulator", "--features", "compiler"]).args(filter))?;
    test("9.0", "", &["--tests"])?;
    let own = own_tests()?;
    let own: Vec<&str> = own.iter().flat_map(|name| ["--test", name]).collect();
    SCHEDULES.iter().try_for_each(|schedule| test("9.0", schedule, &own))?;
    let portable = PORTABLE.map(|name| ["--test", name]).concat();
    ["", "1", "lazy"].iter().try_for_each(|schedule| test("8.0", schedule, &portable))?;
    if filter.is_some() { Ok(()) } else { programs(|command| on_the_card("", command)) }
}

/// The backend's own test programs, one for each file; the other crates' suites lie deeper.
fn own_tests() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let files = std::fs::read_dir(root().join("crates/cuda/tests"))?.collect::<Result<Vec<_>, _>>()?;
    let paths = files.iter().map(|file| file.path()).filter(|path| path.is_file());
    let mut names: Vec<_> = paths.filter_map(|path| Some(path.file_stem()?.to_str()?.to_string())).collect();
    names.sort();
    Ok(names)
}

/// The examples of a kernel of one's own, of an LSTM and of BERT; a tiny GPT, which has to write on the card what it writes on the
/// CPU; the comparison suite.
fn programs(on_the_card: impl Fn(&mut Command) -> Outcome) -> Outcome {
    let folder = root().join("target/cuda-emulator");
    let examples = ["run", "-p", "ferrograd-examples", "--features", "cuda"];
    on_the_card(cargo().args(examples).args(["--example", "06_cuda_kernel"]))?;
    for example in ["07_lstm", "08_bert"] {
        on_the_card(cargo().args(examples).args(["--example", example, "--", "cuda", "2"]))?;
    }
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
    if sample("cpu")? != sample("cuda")? {
        return Err("the GPT writes another text on the card than on the CPU".into());
    }
    comparison(on_the_card, &folder)
}

/// The comparison suite, tiny: it times all its groups and writes results that it can read again.
fn comparison(on_the_card: impl Fn(&mut Command) -> Outcome, folder: &Path) -> Outcome {
    let [json, markdown, svg, again] =
        ["bench.jsonl", "bench.md", "bench.svg", "again.md"].map(|file| folder.join(file));
    let bench = ["run", "-p", "ferrograd-bench", "--features", "cuda", "--", "--device", "cuda"];
    let mut timed = cargo();
    timed.args(bench).args(["--tiny", "--seconds", "0", "--json"]).arg(&json);
    on_the_card(timed.arg("--markdown").arg(&markdown).arg("--svg").arg(&svg))?;
    on_the_card(cargo().args(bench).arg("--from").arg(&json).arg("--markdown").arg(&again))?;
    let text = |path: &Path| std::fs::read_to_string(path);
    if text(&markdown)? != text(&again)? {
        return Err("the suite does not read what it writes".into());
    }
    let (markdown, svg) = (text(&markdown)?, text(&svg)?);
    let groups: Vec<&str> = markdown.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let drawn = groups.iter().all(|group| svg.contains(&format!("● {group}</text>")));
    if groups.len() < 10 || !drawn || !svg.ends_with("</svg>\n") || !markdown.contains("the limits, measured") {
        return Err(format!("the suite's report lacks something: it has the groups {groups:?}").into());
    }
    Ok(())
}
