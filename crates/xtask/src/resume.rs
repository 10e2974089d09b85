//! Half + half must be the whole, bit for bit.

use crate::shell::{self, Outcome, gpt, scratch};
use std::process::{Command, Stdio};

pub fn run(steps: usize) -> Outcome {
    let gpt = gpt()?;
    let folder = scratch("resume")?;
    let (straight, halves) = (folder.join("straight"), folder.join("halves"));
    // Half way between two validations, with the dropout's generator anywhere.
    let half = steps / 2 + 1;
    let steps_text = steps.to_string();
    // Dropout on, so that the state of the random numbers counts too.
    let start = |out: &std::path::Path| {
        let mut command = Command::new(&gpt);
        command.args([
            "--preset",
            "tiny",
            "--dropout",
            "0.1",
            "--eval-every",
            "100",
            "--length",
            "8",
            "--steps",
            &steps_text,
        ]);
        command.arg("--out").arg(out).stdout(Stdio::null());
        command
    };
    shell::run(&mut start(&straight))?;
    shell::run(start(&halves).args(["--stop-after", &half.to_string()]))?;
    shell::run(
        Command::new(&gpt).arg("--resume").arg("--out").arg(&halves).args(["--length", "8"]).stdout(Stdio::null()),
    )?;
    let read = |out: &std::path::Path| std::fs::read(out.join("checkpoint.safetensors"));
    let (a, b) = (read(&straight)?, read(&halves)?);
    if a != b {
        return Err(
            format!("the checkpoints differ ({} and {} bytes), see {}", a.len(), b.len(), folder.display()).into()
        );
    }
    println!(
        "{steps} steps, and {} + {}: the checkpoints (weights, optimiser, losses) are equal, {} bytes",
        half,
        steps - half,
        a.len()
    );
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
