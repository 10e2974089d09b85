//! The Transformer's schedule.

use super::Schedule;
use ferrograd_tensor::ensure;

/// `base · d_model^(−½) · min(s^(−½), s · warmup^(−3/2))` with s = t + 1 (A. Vaswani et al. 2017, arXiv:1706.03762, section
/// 5.3): a linear warm-up, then the inverse square root. The paper's rate is that with base rate 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoamLr {
    d_model: usize,
    warmup: usize,
}
impl NoamLr {
    /// For a model of width `d_model`, rising for `warmup` steps.
    ///
    /// # Panics
    /// If one of the two is 0.
    #[track_caller]
    pub fn new(d_model: usize, warmup: usize) -> Self {
        ensure!(d_model > 0 && warmup > 0, Value, "NoamLr", "d_model {d_model} and warmup {warmup} must be above 0");
        NoamLr { d_model, warmup }
    }
}
impl Schedule for NoamLr {
    fn lr(&self, step: usize, base: f64) -> f64 {
        let s = (step + 1) as f64;
        base * (self.d_model as f64).powf(-0.5) * s.powf(-0.5).min(s * (self.warmup as f64).powf(-1.5))
    }
}
