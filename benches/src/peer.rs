//! The programs that are timed: fresh processes for each group of each peer, that print samples as JSON lines.

use crate::floor::Limits;
use bench_measure::Sample;
use clap::ValueEnum;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};

/// What can go wrong says which peer it was.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The folder of the peers' programs.
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// Whom ferrograd is timed beside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Peer {
    /// PyTorch, eager, on its own CPU kernels: `torch_cpu.py`.
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

    /// Its program, built if need be.
    pub fn program(self) -> Result<Program> {
        let name = self.name();
        let command = if self == Peer::Torch { torch()? } else { build(name)? };
        Ok(Program { name, command })
    }
}

/// PyTorch is there or it is not; nothing is installed.
fn torch() -> Result<Vec<OsString>> {
    let import = Command::new("python3").args(["-c", "import torch"]).output();
    match import {
        Ok(output) if output.status.success() => Ok(vec!["python3".into(), format!("{PEERS}/torch_cpu.py").into()]),
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let why = stderr.lines().last().unwrap_or("no reason given");
            Err(format!("torch: python3 cannot import it ({why}); install it with `python3 -m pip install torch`")
                .into())
        }
        Err(e) => Err(format!("torch: python3 does not start ({e}); it and `pip install torch` are needed").into()),
    }
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

/// Something that prints JSON lines, given `--seconds S --threads N [--case NAME] GROUP`.
pub struct Program {
    /// Who.
    pub name: &'static str,
    command: Vec<OsString>,
}

impl Program {
    /// Ourselves, in a fresh process as the peers are.
    pub fn ferrograd() -> Result<Program> {
        Ok(Program { name: "ferrograd", command: vec![std::env::current_exe()?.into(), "--worker".into()] })
    }

    /// One round of one process; empty of a peer that has none of its cases.
    pub fn samples(&self, share: &Share) -> Result<Vec<Sample>> {
        let (seconds, threads) = (share.seconds.to_string(), share.threads.to_string());
        let mut args = vec!["--seconds", &seconds, "--threads", &threads, share.group];
        args.extend(share.case.into_iter().flat_map(|case| ["--case", case]));
        self.run(share.threads, &args)
    }

    /// What the machine can do; ferrograd alone says it.
    pub fn limits(&self, threads: NonZeroUsize) -> Result<Vec<Limits>> {
        self.run(threads, &["--limits"])
    }

    fn run<T: DeserializeOwned>(&self, threads: NonZeroUsize, args: &[&str]) -> Result<Vec<T>> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).args(args).stderr(Stdio::inherit());
        for pool in ["RAYON", "CANDLE", "OMP", "MKL"] {
            command.env(format!("{pool}_NUM_THREADS"), threads.to_string());
        }
        command.env("FERROGRAD_THREADS", threads.to_string());
        let failed = |why: &dyn std::fmt::Display| format!("{}: {}: {why}", self.name, args.join(" "));
        let output = command.output().map_err(|e| failed(&e))?;
        if !output.status.success() {
            return Err(failed(&output.status).into());
        }
        let text = String::from_utf8(output.stdout).map_err(|e| failed(&e))?;
        let lines = text.lines().filter(|l| l.starts_with('{'));
        Ok(lines.map(serde_json::from_str).collect::<serde_json::Result<_>>().map_err(|e| failed(&e))?)
    }
}
