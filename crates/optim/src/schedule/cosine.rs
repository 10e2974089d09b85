//! Cosine schedules.

use super::{Schedule, half_cosine};
use ferrograd_tensor::ensure;

/// From the base rate to `eta_min` along half a cosine in `t_max` steps (I. Loshchilov, F. Hutter 2016,
/// arXiv:1608.03983, without restarts); it rises again after that, as in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq)]
#[doc(alias = "CosineAnnealingLR")]
pub struct CosineAnnealingLr {
    t_max: usize,
    eta_min: f64,
}
impl CosineAnnealingLr {
    /// Down to 0 in `t_max` steps.
    ///
    /// # Panics
    /// If `t_max` is 0.
    #[track_caller]
    pub fn new(t_max: usize) -> Self {
        ensure!(t_max > 0, Value, "CosineAnnealingLr", "t_max must be above 0");
        CosineAnnealingLr { t_max, eta_min: 0.0 }
    }
    /// The lowest rate.
    pub fn eta_min(self, eta_min: f64) -> Self {
        CosineAnnealingLr { eta_min, ..self }
    }
}
impl Schedule for CosineAnnealingLr {
    fn lr(&self, step: usize, base: f64) -> f64 {
        half_cosine(base, self.eta_min, step as f64 / self.t_max as f64)
    }
}

/// nanoGPT's schedule: a linear warm-up `peak·(t + 1)/(warmup + 1)` for `warmup` steps, half a cosine down to `floor` at
/// step `total`, and `floor` from there on. The rates are those of the first group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmupCosine {
    /// The highest rate.
    pub peak: f64,
    /// The rate at the end.
    pub floor: f64,
    /// Steps of the warm-up.
    pub warmup: usize,
    /// Steps in all.
    pub total: usize,
}
impl Schedule for WarmupCosine {
    fn lr(&self, step: usize, _base: f64) -> f64 {
        let WarmupCosine { peak, floor, warmup, total } = *self;
        if step < warmup {
            return peak * (step + 1) as f64 / (warmup + 1) as f64;
        }
        if step >= total {
            return floor;
        }
        half_cosine(peak, floor, (step - warmup) as f64 / (total - warmup) as f64)
    }
    fn is_absolute(&self) -> bool {
        true
    }
}
