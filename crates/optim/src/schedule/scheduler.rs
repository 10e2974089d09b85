//! A schedule at work.

use super::Schedule;
use crate::Optimizer;
use crate::state::{Reader, count};
use ferrograd_nn::StateDict;
use ferrograd_tensor::{Error, Result, Tensor, error::throw, fail};

/// Applies a [`Schedule`] to an optimiser's groups: call [`step`](Scheduler::step) after each step of the optimiser.
pub struct Scheduler {
    schedule: Box<dyn Schedule>,
    step: usize,
    /// The groups' own rates: those that they had when the scheduler was made.
    base: Vec<f64>,
}

impl Scheduler {
    /// Takes the rates that the groups have as their base rates, and sets those of step 0.
    ///
    /// # Panics
    /// If the schedule gives a rate that is negative or not finite, or changes the momentum of an optimiser that has
    /// none.
    #[track_caller]
    pub fn new(schedule: impl Schedule + 'static, optimizer: &mut dyn Optimizer) -> Scheduler {
        let scheduler = Scheduler { schedule: Box::new(schedule), step: 0, base: rates(optimizer) };
        scheduler.apply(optimizer);
        scheduler
    }
    /// One step is over: sets the rates of the next.
    ///
    /// # Panics
    /// As [`new`](Scheduler::new), or if the optimiser has another number of groups than the first one had.
    #[track_caller]
    pub fn step(&mut self, optimizer: &mut dyn Optimizer) {
        self.step += 1;
        self.apply(optimizer);
    }
    /// The step whose rates are set, from 0.
    pub fn steps(&self) -> usize {
        self.step
    }
    /// The rate of each group at the present step.
    pub fn lrs(&self) -> Vec<f64> {
        let first = self.base[0];
        let lr = |&base: &f64| match self.schedule.is_absolute() {
            true if first > 0.0 => self.schedule.lr(self.step, base) * (base / first),
            _ => self.schedule.lr(self.step, base),
        };
        self.base.iter().map(lr).collect()
    }
    #[track_caller]
    fn apply(&self, optimizer: &mut dyn Optimizer) {
        let groups = optimizer.num_groups();
        if groups != self.base.len() {
            fail!(Value, "Scheduler", "made for {} groups, the optimiser has {groups}", self.base.len())
        }
        let momentum = self.schedule.momentum(self.step);
        for (group, lr) in self.lrs().into_iter().enumerate() {
            or_throw(optimizer.set_option(group, "lr", lr));
            let Some(momentum) = momentum else { continue };
            match ["momentum", "beta1"].into_iter().find(|name| optimizer.option(group, name).is_some()) {
                Some(name) => or_throw(optimizer.set_option(group, name, momentum)),
                None => fail!(
                    Value,
                    "Scheduler",
                    "the schedule changes the momentum, and {} has none (momentum_range(None) leaves it alone)",
                    optimizer.name()
                ),
            }
        }
    }
    /// `step` and `base_lr`. The rates that are set are in the optimiser's own state dict.
    pub fn state_dict(&self) -> StateDict {
        let mut out = StateDict::new();
        out.insert("step", count(self.step as u64));
        out.insert("base_lr", Tensor::from_slice(&self.base, self.base.len()));
        out
    }
    /// Takes over what [`state_dict`](Scheduler::state_dict) gave, and sets that step's rates; the schedule itself is not
    /// in it. The optimiser's own state may be loaded before or after.
    pub fn load_state_dict(&mut self, state: &StateDict, optimizer: &mut dyn Optimizer) -> Result<()> {
        let reader = Reader::new("Scheduler", state);
        let (step, base) = (reader.count("step")?, reader.floats("base_lr", self.base.len())?);
        reader.finish()?;
        (self.step, self.base) = (step as usize, base);
        self.apply(optimizer);
        Ok(())
    }
}

#[track_caller]
fn or_throw(outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        throw(error)
    }
}

/// The rate of each group.
pub(super) fn rates(optimizer: &dyn Optimizer) -> Vec<f64> {
    (0..optimizer.num_groups())
        .map(|k| optimizer.option(k, "lr").expect("every optimiser has a learning rate"))
        .collect()
}
