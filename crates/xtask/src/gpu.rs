//! A folder that runs on a machine with a card and without Rust: the test programs and the comparison suite, stripped, PyTorch's
//! side of the suite, and a script that runs them.

use crate::shell::{Outcome, cargo, read, root, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most that the folder may hold: it has to travel.
const LIMIT: u64 = 60 << 20;

/// Builds everything in release and packs it into `folder`.
pub fn pack(folder: &Path) -> Outcome {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder.join("tests"))?;
    let mut names = Vec::new();
    for program in programs()? {
        // name-0123456789abcdef, from cargo's folder.
        let name = program.file_name().and_then(|name| name.to_str()).ok_or("a program without a name")?;
        let name = name.rsplit_once('-').map_or(name, |(name, _)| name).to_owned();
        copy_stripped(&program, &folder.join("tests").join(&name))?;
        names.push(name);
    }
    for (package, program) in [("ferrograd-examples", "gpt"), ("ferrograd-bench", "ferrograd-bench")] {
        run(cargo().args(["build", "--release", "-p", package, "--features", "cuda", "--bin", program]))?;
        copy_stripped(&root().join("target/release").join(program), &folder.join(program))?;
    }
    let programs = ["tests", "gpt", "ferrograd-bench"];
    run(Command::new("tar").arg("-C").arg(folder).args(["-cJf"]).arg(folder.join("programs.tar.xz")).args(programs))?;
    fs::remove_dir_all(folder.join("tests"))?;
    programs[1..].iter().try_for_each(|program| fs::remove_file(folder.join(program)))?;
    for file in ["torch_cuda.py", "cuda.json"] {
        fs::copy(root().join("benches/peers").join(file), folder.join(file))?;
    }
    fs::write(folder.join("run.sh"), script(&fs::canonicalize(root())?))?;
    let bytes: u64 = files(folder)?.iter().map(|path| path.metadata().map_or(0, |m| m.len())).sum();
    println!(
        "{}: {} ({:.1} MiB); there: bash run.sh tests, bash run.sh benches",
        folder.display(),
        names.join(", "),
        bytes as f64 / 1048576.0
    );
    if bytes > LIMIT { Err(format!("{bytes} bytes are more than {LIMIT}").into()) } else { Ok(()) }
}

/// The test programs that cargo makes.
fn programs() -> Outcome<Vec<PathBuf>> {
    let json = read(
        cargo()
            .args(["test", "--release", "-p", "ferrograd-cuda", "--features", "card", "--tests"])
            .args(["--no-run", "--message-format=json"]),
    )?;
    let executable = |line: &str| {
        let path = line.split("\"executable\":\"").nth(1)?.split('"').next()?;
        line.contains("\"kind\":[\"test\"]").then(|| PathBuf::from(path))
    };
    let found: Vec<PathBuf> = json.lines().filter_map(executable).collect();
    if found.is_empty() { Err("cargo named no test program".into()) } else { Ok(found) }
}

fn copy_stripped(from: &Path, to: &Path) -> Outcome {
    fs::copy(from, to)?;
    run(Command::new("strip").arg(to))
}

fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { all.extend(files(&path)?) } else { all.push(path) }
    }
    Ok(all)
}

/// The script finds what the tests read at run time where they were built, or puts a link there.
fn script(built: &Path) -> String {
    include_str!("gpu.sh").replace("@built@", &format!("{built:?}"))
}
