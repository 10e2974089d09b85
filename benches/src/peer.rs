//! The programs that are timed: fresh processes for each group of each peer, that print samples as JSON lines.

use crate::Device;
use crate::floor::Limits;
use bench_measure::Sample;
use clap::ValueEnum;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What can go wrong says which peer it was.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The folder of the peers' programs.
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// Whom ferrograd is timed beside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Peer {
    /// PyTorch: eager, on its own CPU kernels, in `torch_cpu.py`; with all that it calls on a card in `torch_cuda.py`.
    Torch,
    /// candle, without MKL.
    Candle,
    /// burn with its backend flex.
    Burn,
    /// The crate gemm: matrix products alone.
    Gemm,
    /// faer: matrix products alone.
    Faer,
}

impl Peer {
    /// As the command line and the samples name it.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Torch => "torch",
            Peer::Candle => "candle",
            Peer::Burn => "burn",
            Peer::Gemm => "gemm",
            Peer::Faer => "faer",
        }
    }

    /// Its program, built if need be. Tiny sizes of a card's cases need no card.
    pub fn program(self, device: Device, tiny: bool) -> Result<Program> {
        let name = self.name();
        let command = match (self, device, tiny) {
            (Peer::Torch, Device::Cpu, _) => torch("import torch", "torch_cpu.py", &[])?,
            (Peer::Torch, Device::Cuda, true) => {
                torch("import torch", "torch_cuda.py", &["--tiny", "--device", "cpu"])?
            }
            (Peer::Torch, Device::Cuda, false) => {
                torch("import torch; torch.zeros(1, device='cuda')", "torch_cuda.py", &[])?
            }
            (_, Device::Cpu, _) => build(name)?,
            (_, Device::Cuda, _) => return Err(format!("{name} is timed on the CPU only").into()),
        };
        Ok(Program { name, command, limit: Duration::MAX })
    }
}

/// Python with PyTorch and what it runs. PyTorch is there or it is not: `test` finds out, and nothing is installed.
fn torch(test: &str, script: &str, arguments: &[&str]) -> Result<Vec<OsString>> {
    match Command::new("python3").args(["-c", test]).output() {
        Ok(output) if output.status.success() => {
            let script = script_at(script)?.into_os_string();
            Ok(["python3".into(), script].into_iter().chain(arguments.iter().map(OsString::from)).collect())
        }
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let why = stderr.lines().last().unwrap_or("no reason given");
            Err(format!("torch: python3 cannot use it ({why}); install it with `python3 -m pip install torch`").into())
        }
        Err(e) => Err(format!("torch: python3 does not start ({e}); it and `pip install torch` are needed").into()),
    }
}

/// Beside this program, where both were packed for another machine; or among the sources.
fn script_at(name: &str) -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(name);
    Ok(if beside.exists() { beside } else { Path::new(PEERS).join(name) })
}

/// Builds a peer in the workspace `peers/`, into its own target folder.
fn build(name: &str) -> Result<Vec<OsString>> {
    eprintln!("building {name} (minutes, the first time)");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        // Here cargo finds the peers' own configuration.
        .current_dir(PEERS)
        .args(["build", "--release", "--locked", "--quiet", "--target-dir", "target", "--package"])
        .arg(format!("peer-{name}"))
        .status()
        .map_err(|e| format!("{name}: cargo does not start: {e}"))?;
    if !status.success() {
        return Err(format!("{name}: its program in {PEERS}/{name} does not build").into());
    }
    Ok(vec![format!("{PEERS}/target/release/peer-{name}{}", std::env::consts::EXE_SUFFIX).into()])
}

/// What one process is to time.
pub struct Share<'a> {
    /// Cases of this group:
    pub group: &'a str,
    /// one of them, or all.
    pub case: Option<&'a str>,
    /// Seconds for each case.
    pub seconds: f64,
    /// Threads that it may use.
    pub threads: NonZeroUsize,
}

impl Share<'_> {
    /// As a program's command line has it.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--seconds".into(), self.seconds.to_string()];
        arguments.extend(["--threads".into(), self.threads.to_string(), self.group.into()]);
        arguments.extend(self.case.into_iter().flat_map(|case| ["--case".into(), case.into()]));
        arguments
    }
}

/// Something that prints JSON lines, given `--seconds S --threads N [--case NAME] GROUP`.
#[derive(Clone)]
pub struct Program {
    /// Who.
    pub name: &'static str,
    command: Vec<OsString>,
    /// What takes longer is stopped.
    limit: Duration,
}

impl Program {
    /// Ourselves, in a fresh process as the peers are.
    pub fn ferrograd(arguments: &[&str]) -> Result<Program> {
        let program = std::env::current_exe()?.into_os_string();
        Ok(Program {
            name: "ferrograd",
            command: [program].into_iter().chain(arguments.iter().map(OsString::from)).collect(),
            limit: Duration::MAX,
        })
    }

    /// The same program, which is stopped if it takes longer.
    pub fn within(self, limit: Duration) -> Program {
        Program { limit, ..self }
    }

    /// One round of one process; empty of a peer that has none of its cases.
    pub fn samples(&self, share: &Share) -> Result<Vec<Sample>> {
        self.all(share.threads, &share.arguments())
    }

    /// What the machine can do; ferrograd alone says it.
    pub fn limits(&self, threads: NonZeroUsize) -> Result<Vec<Limits>> {
        self.all(threads, &["--limits"])
    }

    fn all<T: DeserializeOwned>(&self, threads: NonZeroUsize, arguments: &[impl AsRef<str>]) -> Result<Vec<T>> {
        let mut all = Vec::new();
        self.each(threads, arguments, |line| {
            all.push(line);
            Ok(())
        })?;
        Ok(all)
    }

    /// Runs it and hands over each line of JSON as it comes: what was measured is not lost if it fails later.
    pub fn each<T: DeserializeOwned>(
        &self,
        threads: NonZeroUsize,
        arguments: &[impl AsRef<str>],
        mut with: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).args(&arguments).stdout(Stdio::piped()).stderr(Stdio::inherit());
        for pool in ["RAYON", "CANDLE", "OMP", "MKL"] {
            command.env(format!("{pool}_NUM_THREADS"), threads.to_string());
        }
        command.env("FERROGRAD_THREADS", threads.to_string());
        let failed = |why: &dyn std::fmt::Display| format!("{}: {}: {why}", self.name, arguments.join(" "));
        let mut child = command.spawn().map_err(|e| failed(&e))?;
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let child = Mutex::new(child);
        let lock = || child.lock().unwrap_or_else(PoisonError::into_inner);
        let read = thread::scope(|scope| {
            let (done, waiting) = mpsc::channel::<()>();
            scope.spawn(move || {
                if waiting.recv_timeout(self.limit) == Err(RecvTimeoutError::Timeout) {
                    // It fails if the program has just ended: as well.
                    let _ = lock().kill();
                }
            });
            let read = lines
                .map_while(std::result::Result::ok)
                .filter(|line| line.starts_with('{'))
                .try_for_each(|line| with(serde_json::from_str(&line).map_err(|e| failed(&e))?));
            drop(done);
            read
        });
        let status = lock().wait().map_err(|e| failed(&e))?;
        read?;
        if status.success() { Ok(()) } else { Err(failed(&status).into()) }
    }
}
