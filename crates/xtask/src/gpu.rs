//! A folder that runs on a machine with a card and without Rust: test programs, stripped, and a script that runs them.

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
    run(cargo().args(["build", "--release", "-p", "ferrograd-examples", "--features", "cuda", "--bin", "gpt"]))?;
    copy_stripped(&root().join("target/release/gpt"), &folder.join("gpt"))?;
    fs::write(folder.join("run.sh"), script(&fs::canonicalize(root())?))?;
    let bytes: u64 = files(folder)?.iter().map(|path| path.metadata().map_or(0, |m| m.len())).sum();
    println!("{}: {} ({:.1} MiB); there: bash run.sh", folder.display(), names.join(", "), bytes as f64 / 1048576.0);
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

/// Runs in the repository's root or anywhere near; the golden files are looked for where the programs were built.
fn script(built: &Path) -> String {
    format!(
        r#"#!/usr/bin/env bash
# Tests, the sanitizer and a short training run on the card; one report, in $OUT or here.
cd "$(dirname "$0")"
here=$PWD out=${{OUT:-$PWD}} logs=$PWD/logs
report="$out/report.txt"
mkdir -p "$logs"
export FERROGRAD_CACHE="$here/cache"
built={built:?}
if [ ! -e "$built" ]; then mkdir -p "$(dirname "$built")" && ln -s "$(git rev-parse --show-toplevel 2>/dev/null || dirname "$here")" "$built"; fi
say() {{ echo "$*" | tee -a "$report"; }}
: > "$report"
say "$(date -u) $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader)"
failed=0
for test in tests/*; do
  name=$(basename "$test")
  start=$SECONDS
  if timeout 300 "$test" > "$logs/$name.log" 2>&1; then result=ok; else result=FAILED; failed=1; fi
  say "$name: $result, $((SECONDS - start)) s: $(grep -h '^test result' "$logs/$name.log" | tail -n 1)"
  [ $result = ok ] || grep -h 'panicked at' -A 2 "$logs/$name.log" | head -n 30 >> "$report"
done
if command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck; do
    for name in required fused matmul; do
      [ -x "tests/$name" ] || continue
      timeout 300 compute-sanitizer --tool $tool --error-exitcode 9 "tests/$name" --test-threads 1 > "$logs/$tool-$name.log" 2>&1
      say "compute-sanitizer $tool $name: exit $?: $(grep -h 'ERROR SUMMARY\|RACECHECK SUMMARY' "$logs/$tool-$name.log" | tail -n 1)"
    done
  done
else
  say "no compute-sanitizer here"
fi
text="$here/text.txt"
for i in $(seq 2000); do echo "To be, or not to be, that is the question: line $i."; done > "$text"
for device in cpu cuda; do
  timeout 120 ./gpt --preset tiny --device $device --text "$text" --out "$here/gpt-$device" --length 40 > "$logs/gpt-$device.log" 2>&1
  say "gpt on $device: exit $?: $(grep -h 'step' "$logs/gpt-$device.log" | tail -n 1)"
done
tar -czf "$out/logs.tgz" -C "$here" logs
exit $failed
"#
    )
}
