//! How a case is timed and printed: the same code for ferrograd and for the Rust peers, the same steps in
//! `peers/torch_cpu.py`.
#![forbid(unsafe_code)]

mod memory;
mod peer;
pub mod shapes;

pub use peer::{Bench, Group, run};

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// One case in one round: a line of JSON.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Sample {
    /// Name, the same for every peer.
    pub case: String,
    /// Who.
    pub peer: String,
    /// Median milliseconds of one call.
    pub ms: f64,
    /// The most memory that the process held during the case, in MiB; where it ran other cases too, nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_mib: Option<f64>,
    /// What the case cannot do without. Ferrograd's lines say it; it holds for every peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// How much the calls differed, where each was timed for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounds: Option<Rounds>,
    /// Shown beside the others, but no rival of ferrograd's: other arithmetic, or a step of a ladder.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub aside: bool,
}

/// What single calls took, in milliseconds, besides the median.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Rounds {
    /// How many.
    pub count: usize,
    /// The shortest.
    pub min: f64,
    /// Between the quartiles: half of the calls differ by no more.
    pub spread: f64,
}

impl Rounds {
    /// Of the times of single calls.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(ms: &[f64]) -> Rounds {
        let mut sorted = ms.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        Rounds { count, min: sorted[0], spread: sorted[count * 3 / 4] - sorted[count / 4] }
    }
}

/// What one call of a case cannot do without, whoever does it: the floor of its time follows.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default)]
pub struct Work {
    /// Floating-point operations; 0 where memory alone is the limit.
    pub flops: f64,
    /// Bytes to and from main memory, when each operand is read and each result written once.
    pub bytes: f64,
    /// Products may be of bf16.
    pub bf16: bool,
}

/// Measures a case and prints it; if it is `alone` in this process, the memory too.
pub fn case(peer: &str, case: &str, seconds: f64, work: Option<Work>, alone: bool, f: impl FnMut()) {
    memory::reset_peak();
    let ms = time(seconds, f);
    let peak_mib = if alone { memory::peak_mib() } else { None };
    let (case, peer) = (case.into(), peer.into());
    let sample = Sample { case, peer, ms, peak_mib, work, rounds: None, aside: false };
    println!("{}", serde_json::to_string(&sample).expect("a sample is plain data"));
}

/// Calls `f` for a fifth of `seconds` to warm up, then times single calls (batches of short ones) for `seconds`: the
/// median in milliseconds.
fn time(seconds: f64, mut f: impl FnMut()) -> f64 {
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
    median(&times)
}

/// The middle value.
///
/// # Panics
/// If there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_timed() {
        let ms = time(0.01, || std::thread::sleep(Duration::from_millis(2)));
        assert!((2.0..50.0).contains(&ms), "{ms}");
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn half_of_the_rounds_lie_within_the_spread() {
        let times = [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        assert_eq!(Rounds::of(&times), Rounds { count: 8, min: 1.0, spread: 4.0 });
        assert_eq!(Rounds::of(&[2.0]), Rounds { count: 1, min: 2.0, spread: 0.0 });
    }
}
