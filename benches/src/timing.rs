//! How a case is timed, the same way in `peers/torch_cpu.py`.

use ferrograd::tensor::profile::profile;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// One case in one round.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Sample {
    /// Name, the same for every peer.
    pub case: String,
    /// Who.
    pub peer: String,
    /// Median milliseconds of one call.
    pub ms: f64,
    /// Floating-point operations of one call, 0 if that says nothing.
    pub flops: f64,
}

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// What is done with a case.
#[derive(Clone, Copy)]
pub enum Measure {
    /// Its median time, over so many seconds.
    Time(f64),
    /// A table of its kernels.
    Profile,
}

impl Measure {
    /// Measures a case, which does `flops` operations.
    pub fn case(self, case: &str, flops: f64, mut f: impl FnMut()) {
        match self {
            Measure::Time(seconds) => time(case, flops, seconds, f),
            Measure::Profile => {
                // The first calls fill the buffer pool.
                (0..3).for_each(|_| f());
                println!("{case}\n{}\n", profile(f).1);
            }
        }
    }
}

/// Calls `f` for a fifth of `seconds` to warm up, then times single calls (batches of short ones) for `seconds`, and
/// prints the median as a JSON line.
fn time(case: &str, flops: f64, seconds: f64, mut f: impl FnMut()) {
    let budget = Duration::from_secs_f64(seconds);
    let start = Instant::now();
    let mut warm = 0;
    while warm < 2 || start.elapsed() < budget / 5 {
        f();
        warm += 1;
    }
    let one = (start.elapsed() / warm).max(Duration::from_nanos(1));
    let inner = (Duration::from_millis(1).as_nanos() / one.as_nanos()).clamp(1, 100_000) as u32;
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 || (start.elapsed() < budget && times.len() < 2000) {
        let t = Instant::now();
        (0..inner).for_each(|_| f());
        times.push(t.elapsed().as_secs_f64() * 1e3 / inner as f64);
    }
    let sample = Sample { case: case.into(), peer: "ferrograd".into(), ms: median(&times), flops };
    println!("{}", serde_json::to_string(&sample).expect("a sample is plain data"));
}
