//! The CUDA backend's tests on a machine without a card: the kernels themselves, compiled by g++ and run by the emulator.

use crate::shell::{Outcome, cargo, read, root, run};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The examples that run on a card.
const EXAMPLES: [&str; 3] = ["06_cuda_kernel", "07_lstm", "08_bert"];

/// Test programs whose kernels are others on Hopper, which the emulated card is, than on cards before it.
const PORTABLE: [&str; 4] = ["attention", "epilogue", "ladder", "matmul"];
/// In what order threads and streams go on that do not wait for each other: in order; as a seed says; or asynchronous copies as
/// late as their wait allows.
const SCHEDULES: [&str; 5] = ["", "1", "2", "3", "lazy"];
/// Those of the other crates' suites, and of cards before Hopper.
const FEWER: [&str; 3] = ["", "1", "lazy"];

/// Builds the emulator and runs its own tests, the backend's, the other crates' suites with a card as the default device, and
/// programs; only tests with `filter` in their names, if it is given. As many run at a time as there are cores.
pub fn run_suites(filter: Option<&str>) -> Outcome {
    let target = root().join("target");
    let libraries = ferrograd_cuda_emulator::build(&target.join("cuda-emulator"))?;
    let (own, suites) = (files("crates/cuda/tests")?, files("crates/cuda/tests/suites")?);
    let suites: Vec<String> = suites.iter().filter(|s| *s != "default").map(|s| format!("{s}_suite")).collect();
    let built = build(own.iter().chain(&suites))?;
    let on_the_card = |program: &str, schedule: &str| {
        let mut command = Command::new(built.get(program).unwrap_or_else(|| panic!("cargo named no {program}")));
        command.env("LD_LIBRARY_PATH", &libraries).env("FERROGRAD_NVRTC", &libraries).current_dir(root());
        command.env("FERROGRAD_CACHE", target.join("cuda-emulator/cache")).env("FERROGRAD_EMULATOR_SEED", schedule);
        command
    };
    let test = |program: &str, architecture: &str, schedule: &str| {
        let mut command = on_the_card(program, schedule);
        command.current_dir(root().join("crates/cuda")).env("FERROGRAD_EMULATOR_ARCH", architecture).args(filter);
        let order = if schedule.is_empty() { "in order" } else { schedule };
        Work { what: format!("{program}, compute capability {architecture}, schedule: {order}"), command }
    };
    let mut emulator = Command::new(&built["emulator"]);
    emulator.args(filter);
    let mut works = vec![Work { what: "the emulator".into(), command: emulator }];
    for schedule in SCHEDULES {
        works.extend(own.iter().map(|program| test(program, "9.0", schedule)));
        if FEWER.contains(&schedule) {
            works.extend(suites.iter().map(|program| test(program, "9.0", schedule)));
            works.extend(PORTABLE.iter().map(|program| test(program, "8.0", schedule)));
        }
    }
    run_all(works)?;
    if filter.is_some() { Ok(()) } else { programs(|program| on_the_card(program, "")) }
}

/// The names of the Rust files in a folder.
fn files(folder: &str) -> Outcome<Vec<String>> {
    let files = std::fs::read_dir(root().join(folder))?.collect::<Result<Vec<_>, _>>()?;
    let paths = files.iter().map(|file| file.path()).filter(|path| path.is_file());
    let mut names: Vec<_> = paths.filter_map(|path| Some(path.file_stem()?.to_str()?.to_string())).collect();
    names.sort();
    Ok(names)
}

/// Builds test programs and all other programs that run here, by their names. One call of cargo, and with the features of
/// dependencies that the workspace's tests have: otherwise each package would have the crates that it shares with others
/// compiled once more.
fn build<'a>(tests: impl Iterator<Item = &'a String>) -> Outcome<HashMap<String, PathBuf>> {
    let packages = ["ferrograd-cuda", "ferrograd-cuda-emulator", "ferrograd-examples", "ferrograd-bench"];
    let features = ["card", "compiler", "cuda", "cuda"];
    let mut command = cargo();
    command.args(["build", "--message-format=json-render-diagnostics", "--test", "emulator"]).stderr(Stdio::inherit());
    for (package, feature) in packages.iter().zip(features) {
        command.args(["-p", package, "--features", &format!("{package}/{feature}")]);
    }
    tests.for_each(|test| _ = command.args(["--test", test]));
    EXAMPLES.iter().for_each(|example| _ = command.args(["--example", example]));
    command.args(["--bin", "gpt", "--bin", "ferrograd-bench"]);
    let after = |text: &str, key: &str| Some(text.split_once(key)?.1.split_once('"')?.0.to_string());
    let built = |line: &str| {
        let name = after(line.split_once("\"target\":{")?.1, "\"name\":\"")?;
        Some((name, PathBuf::from(after(line, "\"executable\":\"")?)))
    };
    Ok(read(&mut command)?.lines().filter_map(built).collect())
}

/// A program to run, and what to call it.
struct Work {
    what: String,
    command: Command,
}

/// Runs programs beside each other, as many as there are cores; goes on after a failure, to show all of them.
fn run_all(works: Vec<Work>) -> Outcome {
    let (count, works, failures) = (works.len(), Mutex::new(works.into_iter()), AtomicUsize::new(0));
    let next = || works.lock().expect("nobody panics here").next();
    let worker = || {
        while let Some(work) = next() {
            if let Err(failure) = work.run() {
                println!("{failure}");
                failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| (0..cores).for_each(|_| _ = scope.spawn(worker)));
    match failures.into_inner() {
        0 => Ok(()),
        failures => Err(format!("{failures} of {count} programs fail").into()),
    }
}

impl Work {
    /// Says how many tests passed and how long that took. What it printed, if it fails.
    fn run(mut self) -> Result<(), String> {
        let (what, start) = (&self.what, Instant::now());
        let output = self.command.output().map_err(|error| format!("{what}: {error}"))?;
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        if !output.status.success() {
            return Err(format!("{out}{err}{what}: {}", output.status));
        }
        let passed = out.lines().find_map(|line| line.strip_prefix("test result: ok. ")?.split_once(" passed"));
        let passed = passed.map_or("no", |(count, _)| count);
        // With a filter most programs have nothing to do.
        if passed != "0" {
            println!("{what}: {passed} passed in {:.1} s", start.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

/// The examples of a kernel of one's own, of an LSTM and of BERT; a tiny GPT, which has to write on the card what it writes on the
/// CPU; the comparison suite.
fn programs(on_the_card: impl Fn(&str) -> Command) -> Outcome {
    let folder = root().join("target/cuda-emulator");
    let [own_kernel, models @ ..] = EXAMPLES;
    run(&mut on_the_card(own_kernel))?;
    models.iter().try_for_each(|example| run(on_the_card(example).args(["cuda", "2"])))?;
    let tiny = "--preset tiny --layers 1 --width 16 --heads 2 --block 8 --batch 2 --steps 3 --warmup 1 --length 10";
    let text = folder.join("text.txt");
    std::fs::write(&text, "To be, or not to be, that is the question. ".repeat(20))?;
    let sample = |device: &str| {
        let out = folder.join(format!("gpt-{device}"));
        let mut gpt = on_the_card("gpt");
        run(gpt.args(["--device", device]).args(tiny.split(' ')).arg("--text").arg(&text).arg("--out").arg(&out))?;
        Ok::<_, Box<dyn std::error::Error>>(std::fs::read_to_string(out.join("sample.txt"))?)
    };
    if sample("cpu")? != sample("cuda")? {
        return Err("the GPT writes another text on the card than on the CPU".into());
    }
    comparison(|| on_the_card("ferrograd-bench"), &folder)
}

/// The comparison suite, tiny: it times all its groups and writes results that it can read again.
fn comparison(bench: impl Fn() -> Command, folder: &Path) -> Outcome {
    let [json, markdown, svg, again] =
        ["bench.jsonl", "bench.md", "bench.svg", "again.md"].map(|file| folder.join(file));
    let mut timed = bench();
    timed.args(["--device", "cuda", "--tiny", "--seconds", "0", "--json"]).arg(&json);
    run(timed.arg("--markdown").arg(&markdown).arg("--svg").arg(&svg))?;
    run(bench().args(["--device", "cuda", "--from"]).arg(&json).arg("--markdown").arg(&again))?;
    let text = |path: &Path| std::fs::read_to_string(path);
    if text(&markdown)? != text(&again)? {
        return Err("the suite does not read what it writes".into());
    }
    let (markdown, svg) = (text(&markdown)?, text(&svg)?);
    let groups: Vec<&str> = markdown.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let drawn = groups.iter().all(|group| svg.contains(&format!("● {group}</text>")));
    if groups.len() < 14 || !drawn || !svg.ends_with("</svg>\n") || !markdown.contains("the limits, measured") {
        return Err(format!("the suite's report lacks something: it has the groups {groups:?}").into());
    }
    Ok(())
}
