//! Times ferrograd and PyTorch in turn on the same work and prints the ratios.
//!
//! `cargo run --release -p ferrograd-bench` times ferrograd alone; `-- --torch` also starts
//! `benches/peers/torch_cpu.py` (needs `pip install torch`) and alternates with it, because a shared machine drifts:
//! only ratios within one run mean something. Medians of `--rounds` rounds.
#![forbid(unsafe_code)]

mod cases;
mod peer;
mod timing;

use clap::Parser;
use std::collections::BTreeMap;
use timing::{Measure, Sample, median};

/// Times ferrograd, alone or beside PyTorch.
#[derive(Parser)]
struct Options {
    /// Only these groups: gemm, attention, elementwise, lstm, gpt, bert, cnn, decode, overhead. Default: all.
    groups: Vec<String>,
    /// Also time PyTorch, in turn.
    #[arg(long)]
    torch: bool,
    /// Rounds of each program.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds for each case in each round.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Threads of both programs. Default: all cores.
    #[arg(long)]
    threads: Option<usize>,
    /// Also write every sample as JSON lines.
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Print where ferrograd's time goes: one call of each case, kernel by kernel.
    #[arg(long)]
    profile: bool,
    /// Run one round of ferrograd and print JSON lines: what the driver starts.
    #[arg(long, hide = true)]
    worker: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = Options::parse();
    if options.groups.is_empty() {
        options.groups = cases::GROUPS.map(String::from).to_vec();
    }
    let threads = options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    if options.worker || options.profile {
        let measure = if options.profile { Measure::Profile } else { Measure::Time(options.seconds) };
        for group in &options.groups {
            cases::run(group, measure)?;
        }
        return Ok(());
    }
    let mut samples: Vec<Sample> = Vec::new();
    for _ in 0..options.rounds {
        samples.extend(peer::ferrograd(&options.groups, options.seconds, threads)?);
        if options.torch {
            samples.extend(peer::torch(&options.groups, options.seconds, threads)?);
        }
    }
    if let Some(path) = &options.json {
        let lines: Vec<String> = samples.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        std::fs::write(path, lines.join("\n") + "\n")?;
    }
    print_table(&samples, options.torch);
    Ok(())
}

/// One row per case: median times, and how many times faster than PyTorch.
fn print_table(samples: &[Sample], torch: bool) {
    let mut by_case: BTreeMap<&str, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    let mut order: Vec<&Sample> = Vec::new();
    for s in samples {
        let peers = by_case.entry(&s.case).or_default();
        if peers.is_empty() {
            order.push(s);
        }
        peers.entry(&s.peer).or_default().push(s.ms);
    }
    println!("| case | ferrograd ms |{} GFLOP/s |", if torch { " torch ms | torch ÷ ferrograd |" } else { "" });
    println!("|---|---|{}---|", if torch { "---|---|" } else { "" });
    for s in order {
        let peers = &by_case[s.case.as_str()];
        let Some(ours) = peers.get("ferrograd").map(|v| median(v)) else { continue };
        let speed = if s.flops > 0.0 { format!("{:.0}", s.flops / ours / 1e6) } else { "–".into() };
        match peers.get("torch").map(|v| median(v)) {
            Some(theirs) if torch => {
                println!("| {} | {ours:.3} | {theirs:.3} | {:.2} | {speed} |", s.case, theirs / ours)
            }
            _ if torch => println!("| {} | {ours:.3} | – | – | {speed} |", s.case),
            _ => println!("| {} | {ours:.3} | {speed} |", s.case),
        }
    }
}
