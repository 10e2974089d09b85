//! The suite on a card: ferrograd beside PyTorch and the libraries that it calls (cuBLAS, cuDNN, flash attention, what
//! `torch.compile` makes), on the same card, in the same sizes (`peers/cuda.json`), timed in the same way.
//!
//! A case is timed by events on the card: the median of at least 20 rounds, with the card's cache emptied before each. The limits
//! of the report, bandwidth and arithmetic, are the best that anybody reached in the same run. A program or a case that fails is
//! reported, and the rest goes on.

mod report;
mod roofline;
#[cfg(feature = "cuda")]
mod worker;

use crate::peer::{Peer, Program, Result, Share};
use crate::records::{Log, Record, read};
use crate::{Device, Options};
use report::Report;
use std::time::Duration;

/// The groups, in order: if time runs out, the last ones are missed least.
pub const GROUPS: [&str; 14] = [
    "matmul",
    "attention",
    "feed_forward",
    "adamw",
    "elementwise",
    "lstm",
    "gpt2",
    "layer_norm",
    "add_norm",
    "rope",
    "gated",
    "softmax",
    "cross_entropy",
    "ladder",
];

/// Does what the command line says, as the driver or as the process that it starts.
pub fn run(options: &Options) -> Result<()> {
    if options.worker || options.limits {
        return work(options);
    }
    let mut failures = Vec::new();
    let records = if options.from.is_empty() { time(options, &mut failures)? } else { read(&options.from)? };
    let report = Report::new(&records);
    if let (Some(case), true) = (&options.case, report.cases.is_empty()) {
        failures.push(format!("nobody has timed a case '{case}'"));
    }
    match &options.markdown {
        Some(path) => crate::write(path, &report.to_string())?,
        None => print!("{report}"),
    }
    options.svg.as_ref().map_or(Ok(()), |path| crate::write(path, &roofline::svg(&report)))?;
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

#[cfg(feature = "cuda")]
fn work(options: &Options) -> Result<()> {
    let (seconds, tiny) = (options.seconds, options.tiny);
    if options.limits {
        return worker::limits(seconds, tiny);
    }
    worker::run(&options.groups, options.case.as_deref(), seconds, tiny)
}

#[cfg(not(feature = "cuda"))]
fn work(_: &Options) -> Result<()> {
    Err("this program was built without CUDA: cargo run … --features cuda".into())
}

/// Everything, group by group; what fails is added to `failures`.
fn time(options: &Options, failures: &mut Vec<String>) -> Result<Vec<Record>> {
    let (threads, programs) = (options.threads(), programs(options)?);
    let mut log = Log::new(options.json.as_ref())?;
    if options.tiny {
        let about = "tiny sizes: a test of the suite; its times mean nothing".into();
        log.add([Record::About { about }].into_iter())?;
    }
    let mut note = |outcome: Result<()>| {
        if let Err(error) = outcome {
            eprintln!("{error}");
            failures.push(error.to_string());
        }
    };
    let seconds = options.seconds.to_string();
    for program in &programs {
        note(program.each(threads, &["--limits", "--seconds", &seconds], |record| log.add([record].into_iter())));
    }
    for _ in 0..options.rounds() {
        for group in &options.groups {
            let share = Share { group, case: options.case.as_deref(), seconds: options.seconds, threads };
            for program in &programs {
                note(program.each(threads, &share.arguments(), |record| log.add([record].into_iter())));
            }
        }
    }
    Ok(log.records)
}

/// Ferrograd, and PyTorch where it is there or asked for.
fn programs(options: &Options) -> Result<Vec<Program>> {
    let mut ours = vec!["--worker", "--device", "cuda"];
    ours.extend(options.tiny.then_some("--tiny"));
    let us = Program::ferrograd(&ours)?;
    let peers: Result<Vec<Program>> = options.peers.iter().map(|p| p.program(Device::Cuda, options.tiny)).collect();
    let mut peers = peers?;
    if options.peers.is_empty() && !options.tiny {
        match Peer::Torch.program(Device::Cuda, false) {
            Ok(torch) => peers.push(torch),
            Err(why) => eprintln!("{why}\nferrograd is timed alone"),
        }
    }
    let limit = Duration::try_from_secs_f64(options.limit)?;
    Ok([vec![us], peers].concat().into_iter().map(|program| program.within(limit)).collect())
}
