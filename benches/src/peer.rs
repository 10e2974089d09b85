//! Programs that print samples as JSON lines.

use crate::timing::Sample;
use std::process::{Command, Stdio};

type Outcome = Result<Vec<Sample>, Box<dyn std::error::Error>>;

fn collect(mut command: Command) -> Outcome {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter(|l| l.starts_with('{')).map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// A fresh process of this program, as PyTorch's is.
pub fn ferrograd(groups: &[String], seconds: f64, threads: usize) -> Outcome {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--worker").args(["--seconds", &seconds.to_string()]).args(groups);
    command.env("FERROGRAD_THREADS", threads.to_string());
    collect(command)
}

/// `peers/torch_cpu.py`.
pub fn torch(groups: &[String], seconds: f64, threads: usize) -> Outcome {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/torch_cpu.py");
    let mut command = Command::new("python3");
    command.arg(script).args(["--seconds", &seconds.to_string(), "--threads", &threads.to_string()]).args(groups);
    collect(command)
}
