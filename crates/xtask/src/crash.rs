//! `kill -9` at a random moment must always leave a checkpoint that loads and that a run goes on from.

use crate::shell::{Outcome, gpt, read, scratch};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

pub fn run(times: usize) -> Outcome {
    let gpt = gpt()?;
    let folder = scratch("crash")?;
    let checkpoint = folder.join("checkpoint.safetensors");
    // A checkpoint after every step, so that many a kill falls into the middle of writing one.
    let mut child = spawn(
        Command::new(&gpt)
            .args(["--preset", "tiny", "--steps", "1000000", "--eval-every", "1", "--eval-batches", "1", "--out"])
            .arg(&folder),
    )?;
    wait_for_change(&checkpoint, None, &mut child)?;
    let mut random = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.subsec_nanos() as u64 | 1;
    for i in 1..=times {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        std::thread::sleep(Duration::from_millis((random >> 33) % 1500));
        kill(&mut child)?;
        let written = read(Command::new(&gpt).arg("--out").arg(&folder).args(["--generate", "f", "--length", "8"]))?;
        println!("kill {i}: the checkpoint loads and writes {:?}", written.trim_end());
        let before = modified(&checkpoint);
        child = spawn(Command::new(&gpt).arg("--resume").arg(&checkpoint))?;
        wait_for_change(&checkpoint, before, &mut child)?;
    }
    kill(&mut child)?;
    let leftovers = std::fs::read_dir(&folder)?.flatten().filter(|f| f.path().extension().is_some_and(|e| e == "tmp"));
    let leftovers = leftovers.count();
    if leftovers > 1 {
        return Err(format!(
            "{leftovers} temporary files in {}: each run should remove the last one's",
            folder.display()
        )
        .into());
    }
    println!("{times} kills, {times} loadable checkpoints, each run on from the last");
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn spawn(command: &mut Command) -> Outcome<Child> {
    Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

/// SIGKILL; an error if the program had ended by itself.
fn kill(child: &mut Child) -> Outcome {
    child.kill()?;
    let status = child.wait()?;
    match status.code() {
        None => Ok(()),
        Some(code) => Err(format!("the training run ended by itself with code {code}").into()),
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|m| m.modified()).ok()
}

/// Until the running program writes a checkpoint.
fn wait_for_change(path: &Path, before: Option<SystemTime>, child: &mut Child) -> Outcome {
    let start = Instant::now();
    while modified(path) == before {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill()?;
            return Err("no new checkpoint after a minute".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
