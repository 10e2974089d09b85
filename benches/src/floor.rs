//! The least time that a case can take on this machine.

use bench_measure::Work;
use ferrograd::tensor::cpu::peak::peak;
use serde::{Deserialize, Serialize};

/// What the machine reached, as measured in the same run with the same threads: a line of JSON.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Operations a second of f32 multiply-adds.
    pub flops: f64,
    /// The same of bf16 products summed in f32; that of f32 where the machine has no such instruction.
    pub bf16_flops: f64,
    /// Bytes a second read from main memory: writing is no faster.
    pub bandwidth: f64,
}

impl Limits {
    /// Measures them.
    pub fn measure() -> Limits {
        let peak = peak();
        Limits { flops: peak.flops, bf16_flops: peak.bf16_flops, bandwidth: peak.bandwidth }
    }

    /// The best of several measurements, because a disturbed one says too little; none of none.
    pub fn best(measured: &[Limits]) -> Option<Limits> {
        measured.iter().copied().reduce(|a, b| Limits {
            flops: a.flops.max(b.flops),
            bf16_flops: a.bf16_flops.max(b.bf16_flops),
            bandwidth: a.bandwidth.max(b.bandwidth),
        })
    }

    /// Milliseconds that `work` takes at least: its arithmetic at the peak or its bytes at full bandwidth, whichever is
    /// longer. None of a case that declares neither.
    pub fn floor(&self, work: Work) -> Option<f64> {
        let peak = if work.bf16 { self.bf16_flops } else { self.flops };
        let seconds = (work.flops / peak).max(work.bytes / self.bandwidth);
        (seconds > 0.0).then_some(seconds * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_of_two_is_the_floor() {
        let limits = Limits { flops: 1e9, bf16_flops: 2e9, bandwidth: 1e9 };
        let floor = |flops, bytes, bf16| limits.floor(Work { flops, bytes, bf16 });
        assert_eq!(floor(2e6, 1e6, false), Some(2.0));
        assert_eq!(floor(2e6, 1e6, true), Some(1.0));
        assert_eq!(floor(2e6, 3e6, false), Some(3.0));
        assert_eq!(floor(0.0, 0.0, false), None);
        assert_eq!(Limits::best(&[]), None);
        let disturbed = Limits { flops: 5e8, bf16_flops: 3e9, bandwidth: 1e8 };
        assert_eq!(Limits::best(&[limits, disturbed]), Some(Limits { bf16_flops: 3e9, ..limits }));
    }
}
