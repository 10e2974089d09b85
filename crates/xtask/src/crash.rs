//! `kill -9` at a random moment must always leave a checkpoint that loads.

use crate::shell::{Outcome, gpt, read, scratch};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub fn run(times: usize) -> Outcome {
    let gpt = gpt()?;
    let folder = scratch("crash")?;
    let checkpoint = folder.join("checkpoint.safetensors");
    let train = |resume: bool| -> Outcome<Command> {
        let mut command = Command::new(&gpt);
        // A checkpoint after every step, so that many a kill falls into the middle of writing one.
        command.args(["--preset", "tiny", "--steps", "1000000", "--eval-every", "1", "--eval-batches", "1", "--out"]);
        command.arg(&folder).stdout(Stdio::null()).stderr(Stdio::null());
        if resume {
            command = Command::new(&gpt);
            command
                .arg("--resume")
                .arg(&checkpoint)
                .arg("--out")
                .arg(&folder)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        }
        Ok(command)
    };
    // The first checkpoint is waited for; from then on there must always be one.
    let mut child = train(false)?.spawn()?;
    let start = Instant::now();
    while !checkpoint.exists() {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill()?;
            return Err("no checkpoint after a minute".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut random = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.subsec_nanos() as u64 | 1;
    for i in 1..=times {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        std::thread::sleep(Duration::from_millis(200 + (random >> 33) % 1500));
        child.kill()?; // SIGKILL
        child.wait()?;
        let written = read(Command::new(&gpt).arg("--out").arg(&folder).args(["--generate", "f", "--length", "8"]))?;
        println!("kill {i}: the checkpoint loads and writes {:?}", written.trim_end());
        child = train(true)?.spawn()?;
    }
    child.kill()?;
    child.wait()?;
    let leftovers = std::fs::read_dir(&folder)?.count();
    println!("{times} kills, {times} loadable checkpoints; {leftovers} files in the folder");
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
