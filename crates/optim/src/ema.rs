//! Averaging of weights.

use crate::state::{Reader, count};
use crate::stepper::{Shared, lock};
use ferrograd_nn::{Param, StateDict};
use ferrograd_tensor::ops::optimizer::{OptimizerStep, StepCell, Update};
use ferrograd_tensor::{Result, Tensor, ensure, replay};
use std::sync::{Arc, Mutex};

/// The exponential moving average of weights, often better than the last weights (B. Polyak, A. Juditsky 1992).
///
/// `average ← average + (1 − decay)(p − average)` at each [`update`](Ema::update); the first one copies the weights.
/// Averages of half types are kept in f32.
///
/// ```
/// use ferrograd_nn::Param;
/// use ferrograd_optim::Ema;
/// use ferrograd_tensor::Tensor;
/// let p = Param::new(Tensor::zeros(1));
/// let mut ema = Ema::new([p.clone()], 0.9);
/// ema.update();
/// p.set(Tensor::ones(1));
/// ema.update();
/// let averaged = ema.with(|| p.tensor().item::<f32>()); // evaluate, or save the model, here
/// assert!((averaged - 0.1).abs() < 1e-6);
/// assert_eq!(p.tensor().item::<f32>(), 1.0);
/// ```
pub struct Ema {
    params: Vec<Param>,
    averages: Vec<Tensor>,
    /// Shared with the replays of recorded steps.
    progress: Shared<Progress>,
    /// The weights in training, while the averages are in the model.
    training: Option<Vec<Tensor>>,
}

#[derive(Clone, Copy)]
struct Progress {
    decay: f64,
    updates: u64,
}

impl Progress {
    /// `average ← average + (1 − decay)(p − average)`.
    fn step(self) -> OptimizerStep {
        OptimizerStep::Lerp { weight: 1.0 - self.decay }
    }
}

impl Ema {
    /// Averages `params`; 0.999 is a usual decay.
    ///
    /// # Panics
    /// If there are no parameters or `decay` is not in [0, 1].
    #[track_caller]
    pub fn new(params: impl IntoIterator<Item = Param>, decay: f64) -> Ema {
        let params: Vec<Param> = params.into_iter().collect();
        ensure!(!params.is_empty(), Value, "Ema", "got an empty list of parameters");
        ensure!((0.0..=1.0).contains(&decay), Value, "Ema", "decay must be in [0, 1], got {decay}");
        let progress = Arc::new(Mutex::new(Progress { decay, updates: 0 }));
        Ema { averages: params.iter().map(start).collect(), params, progress, training: None }
    }
    /// Takes in the weights as they are now.
    ///
    /// # Panics
    /// If the averages are swapped in.
    #[track_caller]
    pub fn update(&mut self) {
        ensure!(self.training.is_none(), Value, "Ema", "update while the averages are swapped in: swap out first");
        let weights: Vec<Tensor> = self.params.iter().map(Param::tensor).collect();
        for (p, average) in weights.iter().zip(&mut self.averages) {
            if average.device() != p.device() {
                *average = average.to_device(&p.device());
            }
        }
        let now = *lock(&self.progress);
        let cell = StepCell::new(now.step());
        if now.updates == 0 {
            // Not by arithmetic: a + (p − a) may differ from p in the last bit.
            self.averages = self.params.iter().map(start).collect();
        } else {
            let updates = self.averages.iter_mut().zip(&weights);
            let mut updates: Vec<Update> = updates.map(|(p, g)| Update { p, g, state: &mut [] }).collect();
            cell.apply_all(&mut updates);
        }
        lock(&self.progress).updates += 1;
        if replay::seed().is_some() {
            let (told, counted) = (self.progress.clone(), self.progress.clone());
            replay::before_each(move || cell.set(lock(&told).step()), move || lock(&counted).updates += 1);
        }
    }
    /// Number of updates so far.
    pub fn updates(&self) -> u64 {
        lock(&self.progress).updates
    }
    /// The averages in the parameters' order.
    pub fn averages(&self) -> &[Tensor] {
        &self.averages
    }
    /// Puts the averages into the model, and keeps the weights in training aside.
    ///
    /// # Panics
    /// If they are swapped in already.
    #[track_caller]
    pub fn swap_in(&mut self) {
        ensure!(self.training.is_none(), Value, "Ema", "swap_in, but the averages are swapped in already");
        self.training = Some(self.params.iter().map(Param::tensor).collect());
        for (param, average) in self.params.iter().zip(&self.averages) {
            let p = param.tensor();
            param.set(average.to_dtype(p.dtype()).to_device(&p.device()));
        }
    }
    /// Puts the weights in training back.
    ///
    /// # Panics
    /// If the averages are not swapped in.
    #[track_caller]
    pub fn swap_out(&mut self) {
        let training = self.training.take();
        ensure!(training.is_some(), Value, "Ema", "swap_out, but the averages are not swapped in");
        training.into_iter().flatten().zip(&self.params).for_each(|(weights, param)| param.set(weights));
    }
    /// Runs `f` with the averages in the model; the weights in training are back afterwards, even if `f` panics.
    #[track_caller]
    pub fn with<T>(&mut self, f: impl FnOnce() -> T) -> T {
        struct Back<'a>(&'a mut Ema);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.0.swap_out();
            }
        }
        self.swap_in();
        let _back = Back(self);
        f()
    }
    /// `average.<i>` for parameter `i`, `updates` and `decay`.
    pub fn state_dict(&self) -> StateDict {
        let mut out = StateDict::new();
        out.insert("updates", count(self.updates()));
        out.insert("decay", Tensor::scalar(lock(&self.progress).decay));
        for (i, average) in self.averages.iter().enumerate() {
            out.insert(format!("average.{i}"), average.clone());
        }
        out
    }
    /// Takes over what [`state_dict`](Ema::state_dict) gave. An error, and nothing has changed, if it does not fit.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let reader = Reader::new("Ema", state);
        let (updates, decay) = (reader.count("updates")?, reader.float("decay")?);
        if !(0.0..=1.0).contains(&decay) {
            return reader.fail(format!("decay must be in [0, 1], got {decay}"));
        }
        let mut averages = Vec::new();
        for (i, old) in self.averages.iter().enumerate() {
            let key = format!("average.{i}");
            match reader.get(&key) {
                None => return reader.fail(format!("{key} is missing")),
                Some(t) if t.shape() != old.shape() => {
                    return reader.fail(format!("{key} is {}, the parameter {}", t.shape(), old.shape()));
                }
                Some(t) => averages.push(t.to_dtype(old.dtype()).to_device(&old.device())),
            }
        }
        reader.finish()?;
        self.averages.iter_mut().zip(&averages).for_each(|(old, new)| old.assign(new));
        *lock(&self.progress) = Progress { decay, updates };
        Ok(())
    }
}

/// A copy of a parameter in the dtype of its average.
fn start(param: &Param) -> Tensor {
    let p = param.tensor();
    p.to_dtype(p.dtype().accumulator()).copy()
}
