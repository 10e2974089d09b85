//! Training that is interrupted and resumed gives the same bits as training that is not.

mod common;

use common::{every_optimizer, noise};
use ferrograd_autograd::Gradients;
use ferrograd_nn::{Param, StateDict};
use ferrograd_optim::*;
use ferrograd_tensor::{DType, Device, Tensor};
use safetensors::tensor::TensorView;
use std::collections::HashMap;

/// Two matrices, one of them larger than what a kernel does on one of the CPU's threads, or in one of a card's blocks.
fn start() -> Vec<Param> {
    let large = if Device::default().is_cpu() { [190, 180] } else { [70, 60] };
    vec![Param::new(noise([5, 3], 1)), Param::new(noise(large, 2))]
}

/// Gradients that depend on the parameters and the step, so that any difference grows.
fn gradients(params: &[Param], step: u64) -> Gradients {
    let mut grads = Gradients::default();
    for (i, p) in params.iter().enumerate() {
        let p_now = p.tensor();
        let shape = [p_now.dims()[0], p_now.dims()[1]];
        // The first parameter has no gradient at some steps: the two then count different numbers of updates.
        if i == 1 || step % 3 != 1 {
            grads.insert(p, p_now * 0.3 + noise(shape, 100 + 7 * step + i as u64));
        }
    }
    grads
}

fn schedules() -> Vec<(&'static str, Box<dyn Schedule>)> {
    vec![
        ("step", Box::new(StepLr::new(3, 0.7))),
        ("multi-step", Box::new(MultiStepLr::new([4, 12], 0.5))),
        ("exponential", Box::new(ExponentialLr::new(0.93))),
        ("cosine", Box::new(CosineAnnealingLr::new(15).eta_min(1e-3))),
        ("linear", Box::new(LinearLr::new(0.1, 1.0, 12))),
        ("one cycle", Box::new(OneCycleLr::new(0.05, 20))),
        ("noam", Box::new(NoamLr::new(4, 6))),
        ("sequential", Box::new(SequentialLr::starting_with(LinearLr::new(0.1, 1.0, 5)).then(5, StepLr::new(4, 0.5)))),
        ("warm-up cosine", Box::new(WarmupCosine { peak: 0.04, floor: 0.004, warmup: 4, total: 18 })),
    ]
}

/// Writes a state dict as a safetensors file in memory and reads it again.
fn through_a_file(state: &StateDict) -> StateDict {
    let names = [
        (DType::F32, safetensors::Dtype::F32),
        (DType::F64, safetensors::Dtype::F64),
        (DType::I64, safetensors::Dtype::I64),
        (DType::U8, safetensors::Dtype::U8),
    ];
    let dtype = |d: DType| names.iter().find(|n| n.0 == d).expect("a dtype of state dicts").1;
    let bytes: Vec<_> = state.iter().map(|(n, t)| (n, dtype(t.dtype()), t.dims().to_vec(), t.to_bytes())).collect();
    let views: HashMap<&str, TensorView> = bytes
        .iter()
        .map(|(n, d, shape, b)| (*n, TensorView::new(*d, shape.clone(), b).expect("bytes that fit")))
        .collect();
    let file = safetensors::serialize(&views, None).expect("a file");
    let read = safetensors::SafeTensors::deserialize(&file).expect("a file");
    let back = |d| names.iter().find(|n| n.1 == d).expect("a dtype of state dicts").0;
    read.iter().map(|(n, v)| (n.to_string(), Tensor::from_bytes(v.data(), v.shape(), back(v.dtype())))).collect()
}

struct Run {
    params: Vec<Param>,
    optimizer: Box<dyn Optimizer>,
    scheduler: Scheduler,
    plateau: ReduceLrOnPlateau,
    ema: Ema,
}

impl Run {
    /// The `which`th optimiser with the `schedule`th schedule. None if the optimiser has no momentum to change.
    fn new(which: usize, schedule: usize) -> Option<Run> {
        let params = start();
        let (_, mut optimizer) = every_optimizer(&params).swap_remove(which);
        let (_, schedule) = schedules().swap_remove(schedule);
        let has_momentum = ["momentum", "beta1"].iter().any(|name| optimizer.option(0, name).is_some());
        if schedule.momentum(0).is_some() && !has_momentum {
            return None;
        }
        let scheduler = Scheduler::new(schedule, &mut *optimizer);
        let plateau = ReduceLrOnPlateau::new(PlateauMode::Min).patience(2).factor(0.5).cooldown(1);
        let ema = Ema::new(params.clone(), 0.9);
        Some(Run { params, optimizer, scheduler, plateau, ema })
    }
    fn train(&mut self, steps: std::ops::Range<u64>, on_plateau: bool) {
        for step in steps {
            let mut grads = gradients(&self.params, step);
            clip_grad_norm(&mut grads, &self.params, 5.0, 2.0);
            self.optimizer.step(&grads);
            match on_plateau {
                true => drop(self.plateau.step((step as f64).cos(), &mut *self.optimizer)),
                false => self.scheduler.step(&mut *self.optimizer),
            }
            self.ema.update();
        }
    }
    fn save(&self) -> Vec<StateDict> {
        let weights = self.params.iter().enumerate().map(|(i, p)| (i.to_string(), p.tensor())).collect::<StateDict>();
        let states = [
            weights,
            self.optimizer.state_dict(),
            self.scheduler.state_dict(),
            self.plateau.state_dict(),
            self.ema.state_dict(),
        ];
        states.iter().map(through_a_file).collect()
    }
    fn load(&mut self, saved: &[StateDict]) {
        for (i, p) in self.params.iter().enumerate() {
            p.set(saved[0].get(&i.to_string()).expect("a weight").copy());
        }
        self.scheduler.load_state_dict(&saved[2], &mut *self.optimizer).unwrap();
        // Last, as the rate that a plateau reduced is the optimiser's.
        self.optimizer.load_state_dict(&saved[1]).unwrap();
        self.plateau.load_state_dict(&saved[3]).unwrap();
        self.ema.load_state_dict(&saved[4]).unwrap();
    }
    /// Everything, as bits.
    fn bits(&self) -> Vec<(String, Vec<u8>)> {
        let all = self.save();
        let entries = all.iter().enumerate().flat_map(|(k, s)| s.iter().map(move |(n, t)| (format!("{k}.{n}"), t)));
        let mut bits: Vec<_> = entries.map(|(n, t): (String, &Tensor)| (n, t.to_bytes())).collect();
        bits.sort();
        bits
    }
}

fn check(which: usize, schedule: usize, on_plateau: bool) {
    let Some(mut straight) = Run::new(which, schedule) else { return };
    straight.train(0..20, on_plateau);
    let mut first = Run::new(which, schedule).expect("as before");
    first.train(0..10, on_plateau);
    let mut second = Run::new(which, schedule).expect("as before");
    second.load(&first.save());
    second.train(10..20, on_plateau);
    let (name, place) = (straight.optimizer.name(), schedules()[schedule].0);
    for ((n, a), (m, b)) in straight.bits().iter().zip(second.bits().iter()) {
        assert_eq!(n, m, "{name}, {place}");
        assert!(a == b, "{name}, {place}: {n} differs after resuming");
    }
    assert!(straight.bits() != first.bits(), "{name}: the second half changes something");
}

#[test]
fn every_optimizer_resumes_bit_for_bit() {
    for which in 0..every_optimizer(&start()).len() {
        check(which, 3, false);
        check(which, 3, true);
    }
}

#[test]
fn a_schedule_may_be_made_after_the_optimizer_is_loaded() {
    let schedule = || WarmupCosine { peak: 1e-3, floor: 0.0, warmup: 4, total: 100 };
    let mut first = Adam::new(start());
    let mut scheduler = Scheduler::new(schedule(), &mut first);
    (0..50).for_each(|_| scheduler.step(&mut first));
    let mut second = Adam::new(start());
    second.load_state_dict(&first.state_dict()).unwrap();
    let mut resumed = Scheduler::new(schedule(), &mut second);
    resumed.load_state_dict(&scheduler.state_dict(), &mut second).unwrap();
    assert_eq!(second.option(0, "lr"), first.option(0, "lr"));
}

#[test]
fn every_schedule_resumes_bit_for_bit() {
    for schedule in 0..schedules().len() {
        check(1, schedule, false);
        check(4, schedule, false);
    }
}
