//! Starting other programs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a chore ends with.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `cargo` in the workspace's root.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(root());
    command
}

/// Runs it; an error if it fails.
pub fn run(command: &mut Command) -> Outcome {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// Runs it and returns what it prints; an error if it fails.
pub fn read(command: &mut Command) -> Outcome<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

/// The training program, built for release.
pub fn gpt() -> Outcome<PathBuf> {
    run(cargo().args(["build", "--release", "--bin", "gpt"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release/gpt"))
}

/// A new empty folder below the system's temporary one.
pub fn scratch(name: &str) -> Outcome<PathBuf> {
    let folder = std::env::temp_dir().join(format!("ferrograd-{name}-{}", std::process::id()));
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
