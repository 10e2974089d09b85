//! A rate that falls when a metric stops improving.

use super::scheduler::rates;
use crate::Optimizer;
use crate::state::{Reader, count};
use ferrograd_nn::StateDict;
use ferrograd_tensor::{Result, Tensor, ensure};

/// Which way a metric improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlateauMode {
    /// A loss.
    Min,
    /// An accuracy.
    Max,
}

/// How much better counts as better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// By this part of the best value so far.
    Rel(f64),
    /// By this much.
    Abs(f64),
}

/// Multiplies the rates by `factor` when a metric has not improved for more than `patience` reports, then waits
/// `cooldown` reports before it counts again. PyTorch's rules and defaults. It is not a function of the step, hence no
/// [`Schedule`](super::Schedule): report the metric with [`step`](ReduceLrOnPlateau::step).
#[derive(Clone, Debug, PartialEq)]
#[doc(alias = "ReduceLROnPlateau")]
pub struct ReduceLrOnPlateau {
    mode: PlateauMode,
    factor: f64,
    patience: u64,
    threshold: Threshold,
    cooldown: u64,
    min_lr: f64,
    best: f64,
    bad: u64,
    waiting: u64,
}

impl ReduceLrOnPlateau {
    /// Factor 0.1, patience 10, relative threshold 10⁻⁴, no cooldown, no lowest rate.
    pub fn new(mode: PlateauMode) -> Self {
        let best = if mode == PlateauMode::Min { f64::INFINITY } else { f64::NEG_INFINITY };
        let (patience, cooldown) = (10, 0);
        let threshold = Threshold::Rel(1e-4);
        ReduceLrOnPlateau { mode, factor: 0.1, patience, threshold, cooldown, min_lr: 0.0, best, bad: 0, waiting: 0 }
    }
    /// What the rates are multiplied by.
    ///
    /// # Panics
    /// If it is not in [0, 1).
    #[track_caller]
    pub fn factor(self, factor: f64) -> Self {
        ensure!((0.0..1.0).contains(&factor), Value, "ReduceLrOnPlateau", "factor must be in [0, 1), got {factor}");
        ReduceLrOnPlateau { factor, ..self }
    }
    /// How many reports without improvement are borne.
    pub fn patience(self, patience: u64) -> Self {
        ReduceLrOnPlateau { patience, ..self }
    }
    /// How much better counts as better.
    pub fn threshold(self, threshold: Threshold) -> Self {
        ReduceLrOnPlateau { threshold, ..self }
    }
    /// How many reports do not count after a reduction.
    pub fn cooldown(self, cooldown: u64) -> Self {
        ReduceLrOnPlateau { cooldown, ..self }
    }
    /// The lowest rate.
    ///
    /// # Panics
    /// If it is negative.
    #[track_caller]
    pub fn min_lr(self, min_lr: f64) -> Self {
        ensure!(min_lr >= 0.0, Value, "ReduceLrOnPlateau", "min_lr must be ≥ 0, got {min_lr}");
        ReduceLrOnPlateau { min_lr, ..self }
    }
    fn better(&self, metric: f64) -> bool {
        match (self.mode, self.threshold) {
            (PlateauMode::Min, Threshold::Rel(t)) => metric < self.best * (1.0 - t),
            (PlateauMode::Min, Threshold::Abs(t)) => metric < self.best - t,
            (PlateauMode::Max, Threshold::Rel(t)) => metric > self.best * (1.0 + t),
            (PlateauMode::Max, Threshold::Abs(t)) => metric > self.best + t,
        }
    }
    /// Takes in a metric; a NaN counts as no improvement. Returns whether a rate was reduced.
    pub fn step(&mut self, metric: f64, optimizer: &mut dyn Optimizer) -> bool {
        if self.better(metric) {
            (self.best, self.bad) = (metric, 0);
        } else {
            self.bad += 1;
        }
        if self.waiting > 0 {
            (self.waiting, self.bad) = (self.waiting - 1, 0);
        }
        if self.bad <= self.patience {
            return false;
        }
        (self.waiting, self.bad) = (self.cooldown, 0);
        let mut reduced = false;
        for (group, old) in rates(optimizer).into_iter().enumerate() {
            let new = (old * self.factor).max(self.min_lr);
            // PyTorch's `eps`: a smaller change is none.
            if old - new > 1e-8 {
                optimizer.set_option(group, "lr", new).expect("a smaller rate is as good as the one before");
                reduced = true;
            }
        }
        reduced
    }
    /// `best`, `bad` and `waiting`. The rates are in the optimiser's own state dict.
    pub fn state_dict(&self) -> StateDict {
        let mut out = StateDict::new();
        out.insert("best", Tensor::scalar(self.best));
        out.insert("bad", count(self.bad));
        out.insert("waiting", count(self.waiting));
        out
    }
    /// Takes over what [`state_dict`](ReduceLrOnPlateau::state_dict) gave; the settings are not in it.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let reader = Reader::new("ReduceLrOnPlateau", state);
        let (best, bad, waiting) = (reader.float("best")?, reader.count("bad")?, reader.count("waiting")?);
        reader.finish()?;
        (self.best, self.bad, self.waiting) = (best, bad, waiting);
        Ok(())
    }
}
