//! One cycle.

use super::{Schedule, half_cosine};
use ferrograd_tensor::ensure;

/// The curve between two rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anneal {
    /// Half a cosine.
    Cos,
    /// A straight line.
    Linear,
}
impl Anneal {
    fn between(self, start: f64, end: f64, progress: f64) -> f64 {
        match self {
            Anneal::Cos => half_cosine(start, end, progress),
            Anneal::Linear => start + (end - start) * progress,
        }
    }
}

/// The 1cycle policy (L. N. Smith, N. Topin 2017, arXiv:1708.07120) in PyTorch's form: from `max_lr/div_factor` up to `max_lr`
/// in the first `pct_start` of the steps, then down to `max_lr/(div_factor·final_div_factor)`; momentum (β₁ in Adam) goes
/// the other way. With three phases it comes down to the initial rate as fast as it rose, and to the lowest rate in the
/// rest. The rates are those of the first group. After `total_steps` the last values stay (PyTorch raises an error).
#[derive(Clone, Copy, Debug, PartialEq)]
#[doc(alias = "OneCycleLR")]
pub struct OneCycleLr {
    max_lr: f64,
    total_steps: usize,
    pct_start: f64,
    anneal: Anneal,
    div_factor: f64,
    final_div_factor: f64,
    three_phase: bool,
    momentum: Option<[f64; 2]>,
}

/// Where a phase ends, and what rate and momentum it goes from and to.
type Phase = (f64, [f64; 2], [f64; 2]);

impl OneCycleLr {
    /// With PyTorch's defaults: 30 % rise, cosine, factors 25 and 10⁴, two phases, momentum between 0.85 and 0.95.
    ///
    /// # Panics
    /// If `max_lr` is not above 0 or `total_steps` is 0.
    #[track_caller]
    pub fn new(max_lr: f64, total_steps: usize) -> Self {
        const OP: &str = "OneCycleLr";
        ensure!(max_lr > 0.0 && max_lr.is_finite(), Value, OP, "max_lr must be above 0, got {max_lr}");
        ensure!(total_steps > 0, Value, OP, "total_steps must be above 0");
        OneCycleLr {
            max_lr,
            total_steps,
            pct_start: 0.3,
            anneal: Anneal::Cos,
            div_factor: 25.0,
            final_div_factor: 1e4,
            three_phase: false,
            momentum: Some([0.85, 0.95]),
        }
    }
    /// The part of the steps in which the rate rises.
    ///
    /// # Panics
    /// If it is not in [0, 1].
    #[track_caller]
    pub fn pct_start(self, pct_start: f64) -> Self {
        ensure!((0.0..=1.0).contains(&pct_start), Value, "OneCycleLr", "pct_start must be in [0, 1], got {pct_start}");
        OneCycleLr { pct_start, ..self }
    }
    /// The curve.
    pub fn anneal(self, anneal: Anneal) -> Self {
        OneCycleLr { anneal, ..self }
    }
    /// How many times smaller than the highest rate the first is.
    ///
    /// # Panics
    /// If it is not above 0.
    #[track_caller]
    pub fn div_factor(self, div_factor: f64) -> Self {
        ensure!(div_factor > 0.0, Value, "OneCycleLr", "div_factor must be above 0, got {div_factor}");
        OneCycleLr { div_factor, ..self }
    }
    /// How many times smaller than the first rate the last is.
    ///
    /// # Panics
    /// If it is not above 0.
    #[track_caller]
    pub fn final_div_factor(self, final_div_factor: f64) -> Self {
        ensure!(
            final_div_factor > 0.0,
            Value,
            "OneCycleLr",
            "final_div_factor must be above 0, got {final_div_factor}"
        );
        OneCycleLr { final_div_factor, ..self }
    }
    /// Down to the initial rate first, then to the lowest.
    pub fn three_phase(self, three_phase: bool) -> Self {
        OneCycleLr { three_phase, ..self }
    }
    /// Momentum at the highest rate (`base`) and at the lowest (`max`); `None` leaves it alone.
    ///
    /// # Panics
    /// If one is not in [0, 1).
    #[track_caller]
    pub fn momentum_range(self, base_and_max: Option<[f64; 2]>) -> Self {
        let fine = base_and_max.iter().flatten().all(|m| (0.0..1.0).contains(m));
        ensure!(fine, Value, "OneCycleLr", "momenta must be in [0, 1), got {base_and_max:?}");
        OneCycleLr { momentum: base_and_max, ..self }
    }

    fn phases(&self) -> Vec<Phase> {
        let initial = self.max_lr / self.div_factor;
        let (highest, lowest) = (self.max_lr, initial / self.final_div_factor);
        let [base, max] = self.momentum.unwrap_or_default();
        let (rise, end) = (self.pct_start * self.total_steps as f64, self.total_steps as f64 - 1.0);
        if self.three_phase {
            vec![
                (rise - 1.0, [initial, highest], [max, base]),
                (2.0 * rise - 2.0, [highest, initial], [base, max]),
                (end, [initial, lowest], [max, max]),
            ]
        } else {
            vec![(rise - 1.0, [initial, highest], [max, base]), (end, [highest, lowest], [base, max])]
        }
    }
    /// Rate and momentum during `step`.
    fn at(&self, step: usize) -> [f64; 2] {
        let step = step.min(self.total_steps - 1) as f64;
        let phases = self.phases();
        let mut start = 0.0;
        for (i, &(end, lr, momentum)) in phases.iter().enumerate() {
            if step <= end || i + 1 == phases.len() {
                // A phase without length is over when it begins.
                let progress = if end > start { (step - start) / (end - start) } else { 1.0 };
                let value = |[from, to]: [f64; 2]| self.anneal.between(from, to, progress);
                return [value(lr), value(momentum)];
            }
            start = end;
        }
        unreachable!("the last phase takes every step")
    }
}
impl Schedule for OneCycleLr {
    fn lr(&self, step: usize, _base: f64) -> f64 {
        self.at(step)[0]
    }
    fn is_absolute(&self) -> bool {
        true
    }
    fn momentum(&self, step: usize) -> Option<f64> {
        self.momentum.map(|_| self.at(step)[1])
    }
}
