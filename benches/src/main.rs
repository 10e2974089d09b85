//! Times ferrograd and its peers in turn on the same work and prints the ratios.
//!
//! `cargo run --release -p ferrograd-bench` times ferrograd alone. `-- --peers torch,candle,burn,gemm,faer` alternates
//! with programs in `benches/peers/`, because a shared machine drifts: only ratios within one run mean something.
//! PyTorch must be there (`python3 -m pip install torch`); cargo builds the others, in a workspace of their own.
//!
//! On a card: `cargo run --release -p ferrograd-bench --features cuda -- --device cuda`; see [`cuda`].
//!
//! A row has the medians of `--rounds` rounds, the ratio to the fastest peer, and the floor: what the arithmetic takes at
//! the machine's multiply-add peak or the bytes at its memory bandwidth, both measured in the same run.
#![forbid(unsafe_code)]

mod cases;
mod chart;
mod cuda;
mod floor;
mod peer;
mod records;
mod report;
mod timing;
mod work;

use bench_measure::Sample;
use clap::{Parser, ValueEnum};
use floor::Limits;
use peer::{Peer, Program, Result, Share};
use records::{Log, Record, read};
use report::Report;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use timing::{How, Measure};

/// Times ferrograd, alone or beside its peers.
#[derive(Parser)]
struct Options {
    /// Only these groups. Default: all that the device has; a wrong name lists them.
    groups: Vec<String>,
    /// Only the case of this name, of one group.
    #[arg(long, value_name = "NAME", requires = "groups")]
    case: Option<String>,
    /// Also time these, in turn. On a card: torch, which is timed anyway where it is there.
    #[arg(long, value_delimiter = ',', value_name = "PEER,…")]
    peers: Vec<Peer>,
    /// Where to run.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// On a card: sizes that an emulator can do, as a test of the suite itself.
    #[arg(long)]
    tiny: bool,
    /// Rounds of each program. Default: 3, or 1 on a card.
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds for each case in each round.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// On a card: stop a program that takes longer for a group. What it has timed counts.
    #[arg(long, default_value_t = 600.0, value_name = "SECONDS")]
    limit: f64,
    /// Threads of each program. Default: all cores.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Also write every sample as JSON lines, as it comes.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Time nothing: report on JSON lines of earlier runs.
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
    /// Write the table here. Default: to the terminal.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Also draw the ratios; of a card the roofline.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print where ferrograd's time goes: one call of each case, kernel by kernel. FERROGRAD_THREADS=N sets the threads.
    #[arg(long, conflicts_with = "threads")]
    profile: bool,
    /// Run one round of ferrograd and print JSON lines: what the driver starts.
    #[arg(long, hide = true)]
    worker: bool,
    /// As a worker, print what the machine can do.
    #[arg(long, hide = true)]
    limits: bool,
}

/// Where the cases run.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Device {
    /// All peers have this one.
    Cpu,
    /// The first card.
    Cuda,
}

impl Device {
    fn groups(self) -> [&'static str; 14] {
        if self == Device::Cpu { cases::GROUPS } else { cuda::GROUPS }
    }
}

impl Options {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.device == Device::Cpu { 3 } else { 1 })
    }
    fn threads(&self) -> NonZeroUsize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }
}

fn main() {
    if let Err(error) = run(Options::parse()) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn run(mut options: Options) -> Result<()> {
    let groups = options.device.groups();
    if options.groups.is_empty() {
        options.groups = groups.map(String::from).to_vec();
    }
    if let Some(group) = options.groups.iter().find(|group| !groups.contains(&group.as_str())) {
        return Err(format!("no group {group:?}; there are {groups:?}").into());
    }
    if options.device == Device::Cuda {
        return cuda::run(&options);
    }
    if options.tiny {
        return Err("--tiny is for a card's cases".into());
    }
    if let (Some(case), false) = (&options.case, options.worker) {
        let [group] = &options.groups[..] else { return Err("--case names a case of one group".into()) };
        if !cases::names(group)?.contains(case) {
            return Err(format!("the group {group} has no case '{case}'").into());
        }
    }
    if options.limits {
        println!("{}", serde_json::to_string(&Limits::measure())?);
        return Ok(());
    }
    if options.worker || options.profile {
        let how = if options.profile { How::Profile } else { How::Time(options.seconds) };
        let measure = Measure { how, only: options.case.as_deref() };
        let all = || options.groups.iter().try_for_each(|group| cases::run(group, measure));
        return Ok(ferrograd::on_pool(|| all().map_err(|error| error.to_string()))?);
    }
    let records = if options.from.is_empty() { time(&options)? } else { read(&options.from)? };
    let report = Report::new(&records);
    match &options.markdown {
        Some(path) => write(path, &report.to_string())?,
        None => print!("{report}"),
    }
    options.svg.as_ref().map_or(Ok(()), |path| write(path, &chart::svg(&report)))
}

/// All rounds, group by group: the machine's limits, then ferrograd and each peer.
fn time(options: &Options) -> Result<Vec<Record>> {
    let threads = options.threads();
    let us = Program::ferrograd(&["--worker"])?;
    let peers: Vec<Program> =
        options.peers.iter().map(|p| p.program(options.device, options.tiny)).collect::<Result<_>>()?;
    let mut log = Log::new(options.json.as_ref())?;
    for _ in 0..options.rounds() {
        for group in &options.groups {
            log.add(us.limits(threads)?.into_iter().map(Record::Limits))?;
            for case in processes(options, group)? {
                let share = Share { group, case: case.as_deref(), seconds: options.seconds, threads };
                in_turn(&share, &us, &peers, &mut log)?;
            }
        }
    }
    Ok(log.records)
}

/// Ferrograd, then each peer.
fn in_turn(share: &Share, us: &Program, peers: &[Program], log: &mut Log) -> Result<()> {
    let ours = us.samples(share)?;
    if ours.is_empty() {
        return Err(format!("{}: no case {:?}", share.group, share.case.unwrap_or_default()).into());
    }
    log.add(ours.iter().cloned().map(Record::Sample))?;
    for peer in peers {
        let theirs = peer.samples(share)?;
        check(peer.name, &theirs, &ours)?;
        log.add(theirs.into_iter().map(Record::Sample))?;
    }
    Ok(())
}

/// The processes that a group takes, each for one case or for all of them.
fn processes(options: &Options, group: &str) -> Result<Vec<Option<String>>> {
    Ok(match &options.case {
        Some(case) => vec![Some(case.clone())],
        None if cases::APART.contains(&group) => cases::names(group)?.into_iter().map(Some).collect(),
        None => vec![None],
    })
}

/// A case under a name that ferrograd does not have would silently be compared with nothing.
fn check(peer: &str, theirs: &[Sample], ours: &[Sample]) -> Result<()> {
    match theirs.iter().find(|t| ours.iter().all(|o| o.case != t.case)) {
        Some(t) => Err(format!("{peer}: times {:?}, which ferrograd does not", t.case).into()),
        None => Ok(()),
    }
}

fn write(path: &PathBuf, text: &str) -> Result<()> {
    Ok(std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))?)
}
