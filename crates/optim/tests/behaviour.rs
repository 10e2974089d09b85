//! What an optimiser touches and what not, groups, dtypes, memory, and the text of errors.

mod common;

use common::{every_optimizer, noise};
use ferrograd_autograd::Gradients;
use ferrograd_nn::{Param, StateDict};
use ferrograd_optim::*;
use ferrograd_tensor::{DType, Device, Tensor, catch};
use std::sync::Arc;

fn address(t: &Tensor) -> *const u8 {
    Arc::as_ptr(t.buffer()).cast()
}
fn with_gradients(of: &[(&Param, Tensor)]) -> Gradients {
    let mut grads = Gradients::default();
    of.iter().for_each(|(p, g)| grads.insert(*p, g.clone()));
    grads
}
fn message<T>(f: impl FnOnce() -> T) -> String {
    match catch(f) {
        Ok(_) => panic!("no error"),
        Err(error) => error.to_string(),
    }
}

/// A hundred on a card, which may be an emulated one.
#[test]
fn a_thousand_steps_stay_in_place() {
    let steps = if Device::default().is_cpu() { 1000 } else { 100 };
    let params = [Param::new(noise([3, 4], 1)), Param::new(noise([4, 2], 2))];
    for (name, mut optimizer) in every_optimizer(&params) {
        let addresses = |o: &dyn Optimizer| -> Vec<*const u8> {
            let weights = params.iter().map(|p| address(&p.tensor())).collect::<Vec<_>>();
            // Of the state dict, only the state's tensors live longer than the dict.
            let state = o.state_dict();
            let own = state.iter().filter(|(n, _)| n.starts_with("state.") && !n.ends_with(".step"));
            weights.into_iter().chain(own.map(|(_, t)| address(t))).collect()
        };
        let x = noise([5, 3], 3);
        let mut before = Vec::new();
        for step in 0..steps {
            // A real graph: what it saved of the parameters must be free again by the time of the step.
            let loss = {
                let y = ferrograd_autograd::Var::constant(x.clone()).matmul(&params[0].var()).matmul(&params[1].var());
                (&y * &y).sum()
            };
            let grads = loss.backward();
            optimizer.step(&grads);
            if step == 0 {
                before = addresses(&*optimizer);
            }
        }
        assert_eq!(before, addresses(&*optimizer), "{name}");
        for p in &params {
            assert!(p.update(|t| t.is_unique()), "{name}");
            assert!(p.tensor().to_f64_vec().iter().all(|v| v.is_finite()), "{name}");
        }
        params[0].set(noise([3, 4], 1));
        params[1].set(noise([4, 2], 2));
    }
}

#[test]
fn somebody_elses_copy_of_a_parameter_does_not_change() {
    let p = Param::new(noise([2, 2], 1));
    let before = p.tensor();
    let values = before.to_vec::<f32>();
    Sgd::new([p.clone()]).lr(0.1).step(&with_gradients(&[(&p, Tensor::ones([2, 2]))]));
    assert_eq!(before.to_vec::<f32>(), values);
    assert_ne!(p.tensor().to_vec::<f32>(), values);
}

#[test]
fn without_gradient_or_frozen_nothing_changes() {
    for which in 0..every_optimizer(&[Param::new(noise([2, 2], 9))]).len() {
        let params = [Param::new(noise([3, 2], 1)), Param::new(noise([3, 2], 2)), Param::new(noise([3, 2], 3))];
        let (name, mut optimizer) = every_optimizer(&params).swap_remove(which);
        let g = noise([3, 2], 4);
        let all = with_gradients(&params.each_ref().map(|p| (p, g.clone())));
        optimizer.step(&all);
        let before: Vec<Vec<f32>> = params.iter().map(|p| p.tensor().to_vec()).collect();
        let state = |o: &dyn Optimizer, i: usize| -> Vec<Vec<f64>> {
            o.state_dict().strip_prefix(&format!("state.{i}.")).iter().map(|(_, t)| t.to_f64_vec()).collect()
        };
        let states: Vec<_> = (0..3).map(|i| state(&*optimizer, i)).collect();
        params[1].set_requires_grad(false);
        optimizer.step(&with_gradients(&[(&params[0], g.clone()), (&params[1], g.clone())]));
        for i in 0..3 {
            assert_eq!(params[i].tensor().to_vec::<f32>() != before[i], i == 0, "{name} {i}");
            assert_eq!(state(&*optimizer, i) != states[i], i == 0, "{name} {i}");
        }
    }
}

#[test]
fn half_types_compute_in_f32_and_gradients_may_be_strided_or_of_another_dtype() {
    for dtype in [DType::BF16, DType::F16] {
        let shape = [4, 3];
        for which in 0..every_optimizer(&[Param::new(noise([2, 2], 9))]).len() {
            let half = Param::new(noise(shape, 1).to_dtype(dtype));
            let wide = Param::new(half.tensor().to_dtype(DType::F32));
            let (name, mut of_half) = every_optimizer(std::slice::from_ref(&half)).swap_remove(which);
            let (_, mut of_wide) = every_optimizer(std::slice::from_ref(&wide)).swap_remove(which);
            let g = noise([3, 4], 2).t();
            of_half.step(&with_gradients(&[(&half, g.clone())]));
            of_wide.step(&with_gradients(&[(&wide, g.contiguous().to_dtype(DType::F64))]));
            assert_eq!(half.tensor().dtype(), dtype);
            assert_eq!(half.tensor().to_f64_vec(), wide.tensor().to_dtype(dtype).to_f64_vec(), "{name}");
            for (n, t) in of_half.state_dict().strip_prefix("state.0.").iter() {
                assert_eq!(t.dtype(), if n == "step" { DType::I64 } else { DType::F32 }, "{name} {n}");
            }
        }
    }
}

#[test]
fn a_model_may_change_its_dtype_between_steps() {
    let p = Param::new(noise([2, 2], 1));
    let mut adam = Adam::new([p.clone()]);
    adam.step(&with_gradients(&[(&p, Tensor::ones([2, 2]))]));
    p.set(p.tensor().to_dtype(DType::F64));
    adam.step(&with_gradients(&[(&p, Tensor::ones([2, 2]))]));
    assert_eq!(p.tensor().dtype(), DType::F64);
    assert_eq!(adam.state_dict().get("state.0.exp_avg").unwrap().dtype(), DType::F64);
}

#[test]
fn zero_sized_parameters_are_harmless() {
    let p = Param::new(Tensor::zeros([0, 3]));
    for (_, mut optimizer) in every_optimizer(std::slice::from_ref(&p)) {
        optimizer.step(&with_gradients(&[(&p, Tensor::zeros([0, 3]))]));
    }
    let mut grads = with_gradients(&[(&p, Tensor::zeros([0, 3]))]);
    assert_eq!(clip_grad_norm(&mut grads, [&p], 1.0, f64::INFINITY).item::<f64>(), 0.0);
}

#[test]
fn groups_follow_the_optimiser_in_what_they_do_not_set() {
    let [a, b, c] = [1, 2, 3].map(|i| Param::new(noise([2, 2], i)));
    let mut adamw = AdamW::new([a])
        .lr(0.1)
        .add_group(ParamGroup::new([b]).weight_decay(0.0))
        .add_group(ParamGroup::new([c]).lr(0.01).option("beta1", 0.5))
        .weight_decay(0.3)
        .betas(0.8, 0.95);
    let options = |o: &dyn Optimizer, name| [0, 1, 2].map(|k| o.option(k, name).unwrap());
    assert_eq!(options(&adamw, "lr"), [0.1, 0.1, 0.01]);
    assert_eq!(options(&adamw, "weight_decay"), [0.3, 0.0, 0.3]);
    assert_eq!(options(&adamw, "beta1"), [0.8, 0.8, 0.5]);
    assert_eq!(options(&adamw, "beta2"), [0.95; 3]);
    assert_eq!(adamw.rule(1).weight_decay, 0.0);
    assert_eq!(adamw.parameters().len(), 3);

    // A schedule that scales keeps each group's rate; one that sets the first group's keeps the ratios.
    let mut scheduler = Scheduler::new(StepLr::new(1, 0.5), &mut adamw);
    scheduler.step(&mut adamw);
    assert_eq!(options(&adamw, "lr"), [0.05, 0.05, 0.005]);
    let _ = Scheduler::new(|_: usize, base: f64| base * 2.0, &mut adamw);
    assert_eq!(options(&adamw, "lr"), [0.1, 0.1, 0.01]);
    let _ = Scheduler::new(WarmupCosine { peak: 0.4, floor: 0.0, warmup: 0, total: 5 }, &mut adamw);
    assert_eq!(options(&adamw, "lr").map(|x| (x * 1e9).round()), [4e8, 4e8, 4e7]);
    adamw.set_lr(0.25);
    assert_eq!((adamw.get_lr(), options(&adamw, "lr")), (0.25, [0.25; 3]));
}

#[test]
fn a_schedule_of_momentum_reaches_beta1() {
    let mut adam = Adam::new([Param::new(noise([2, 2], 1))]);
    let _ = Scheduler::new(OneCycleLr::new(0.1, 10), &mut adam);
    assert_eq!(adam.option(0, "beta1"), Some(0.95));
    let mut adagrad = Adagrad::new([Param::new(noise([2, 2], 1))]);
    assert_eq!(
        message(|| Scheduler::new(OneCycleLr::new(0.1, 10), &mut adagrad)),
        "Scheduler: the schedule changes the momentum, and Adagrad has none (momentum_range(None) leaves it alone)"
    );
    let _ = Scheduler::new(OneCycleLr::new(0.1, 10).momentum_range(None), &mut adagrad);
}

#[test]
fn schedules_at_their_ends() {
    let s = WarmupCosine { peak: 1.0, floor: 0.1, warmup: 2, total: 10 };
    assert_eq!([s.lr(0, 9.0), s.lr(2, 9.0), s.lr(10, 9.0), s.lr(1000, 9.0)], [1.0 / 3.0, 1.0, 0.1, 0.1]);
    let s = OneCycleLr::new(1.0, 1);
    assert!((s.lr(0, 1.0) - s.lr(50, 1.0)).abs() == 0.0 && s.lr(0, 1.0).is_finite());
    for pct in [0.0, 0.01, 1.0] {
        let s = OneCycleLr::new(1.0, 10).pct_start(pct).three_phase(true);
        assert!((0..20).all(|t| (0.0..=1.0).contains(&s.lr(t, 1.0))), "{pct}");
    }
    assert_eq!(LinearLr::new(0.5, 1.0, 0).lr(0, 2.0), 2.0);
}

#[test]
fn mistakes_in_the_making_are_named() {
    let p = Param::new(noise([2, 3], 1));
    let ps = || [p.clone()];
    use message as text;
    let none: [Param; 0] = [];
    assert_eq!(text(|| Sgd::new(none)), "SGD: got an empty list of parameters");
    assert_eq!(text(|| Adam::new(ps()).lr(-1.0)), "Adam: lr must be ≥ 0 and finite, got -1");
    assert_eq!(text(|| Adam::new(ps()).lr(f64::NAN)), "Adam: lr must be ≥ 0 and finite, got NaN");
    assert_eq!(text(|| AdamW::new(ps()).betas(0.9, 1.0)), "AdamW: beta2 must be in [0, 1), got 1");
    assert_eq!(text(|| Lion::new(ps()).betas(-0.1, 0.9)), "Lion: beta1 must be in [0, 1), got -0.1");
    assert_eq!(text(|| RmsProp::new(ps()).eps(-1e-8)), "RMSprop: eps must be ≥ 0 and finite, got -0.00000001");
    assert_eq!(text(|| Adadelta::new(ps()).rho(2.0)), "Adadelta: rho must be in [0, 1), got 2");
    assert_eq!(
        text(|| Sgd::new([p.clone(), p.clone()])),
        "SGD: parameter 1 of group 0 ([2, 3]) is there already: a parameter can be in one group only, once"
    );
    assert_eq!(
        text(|| AdamW::new(ps()).add_group(ParamGroup::new(ps()))),
        "AdamW: parameter 0 of group 1 ([2, 3]) is there already: a parameter can be in one group only, once"
    );
    assert_eq!(
        text(|| Lion::new(ps()).add_group(ParamGroup::new([]).option("momentum", 0.9))),
        "Lion: no option \"momentum\"; there are lr, beta1, beta2, weight_decay"
    );
    assert_eq!(text(|| Adam::new(ps()).with_option("amsgrad", 0.5)), "Adam: amsgrad must be 0 or 1, got 0.5");
    assert_eq!(
        text(|| Muon::new([Param::new(Tensor::zeros(5))])),
        "Muon: parameter 0 of group 0: only matrices can be orthogonalised, it is [5] (give the others to AdamW)"
    );
    assert_eq!(
        text(|| Sgd::new(ps()).nesterov(true).step(&Gradients::default())),
        "SGD: nesterov needs momentum > 0 and dampening 0, got momentum 0 and dampening 0"
    );
    assert_eq!(
        text(|| Sgd::new(ps()).step(&with_gradients(&[(&p, Tensor::zeros(3))]))),
        "SGD: a parameter of [2, 3] was given a gradient of [3]"
    );
    let mut grads = Gradients::default();
    assert_eq!(text(|| clip_grad_norm(&mut grads, [&p], -1.0, 2.0)), "clip_grad_norm: max_norm must be ≥ 0, got -1");
    assert_eq!(text(|| Ema::new(ps(), 1.5)), "Ema: decay must be in [0, 1], got 1.5");
    assert_eq!(text(|| StepLr::new(0, 0.1)), "StepLr: step_size must be above 0");
    let mut sgd = Sgd::new(ps());
    assert_eq!(text(|| sgd.set_lr(-3.0)), "SGD: lr must be ≥ 0 and finite, got -3");
    assert_eq!(sgd.set_option(4, "lr", 1.0).unwrap_err().to_string(), "SGD: no group 4: there are 1");
}

#[test]
fn a_state_dict_that_does_not_fit_is_refused_and_changes_nothing() {
    let p = Param::new(noise([2, 3], 1));
    let mut adam = Adam::new([p.clone()]);
    adam.step(&with_gradients(&[(&p, noise([2, 3], 2))]));
    let good = adam.state_dict();
    let mut load = |state: &StateDict| {
        let text = adam.load_state_dict(state).unwrap_err().to_string();
        let after = adam.state_dict();
        assert!(good.iter().all(|(n, t)| after.get(n).unwrap().to_bytes() == t.to_bytes()), "{text}");
        text
    };
    let with = |name: &str, t: Tensor| {
        let mut state = good.clone();
        state.insert(name, t);
        state
    };
    let without = |name: &str| good.clone().rename(|n| (n != name).then(|| n.to_string()));
    let what = "Adam: state dict: ";
    assert_eq!(load(&Sgd::new([p.clone()]).state_dict()), format!("{what}it is the state of \"SGD\""));
    assert_eq!(
        load(&StateDict::new()),
        format!("{what}the entry `optimizer` is missing: this is no optimiser's state")
    );
    assert_eq!(
        load(&with("state.0.exp_avg", Tensor::zeros([3, 2]))),
        format!("{what}state.0.exp_avg is [3, 2], the parameter [2, 3]")
    );
    assert_eq!(load(&without("state.0.exp_avg_sq")), format!("{what}state.0.exp_avg_sq is missing"));
    assert_eq!(load(&without("group.0.beta1")), format!("{what}group.0.beta1 is missing"));
    assert_eq!(load(&with("state.1.step", Tensor::scalar(3i64))), format!("{what}unexpected entry state.1.step"));
    assert_eq!(
        load(&with("group.0.lr", Tensor::scalar(-1.0))),
        format!("{what}group 0: lr must be ≥ 0 and finite, got -1")
    );
    let q = Param::new(noise([2, 3], 1));
    assert_eq!(
        load(&Adam::new([p.clone(), q.clone()]).state_dict()),
        format!("{what}group 0 has 2 parameters, the optimiser's 1")
    );
    let two = Adam::new([p.clone()]).add_group(ParamGroup::new([q])).state_dict();
    assert_eq!(load(&two), format!("{what}it has 2 parameter groups, the optimiser 1"));
    assert_eq!(
        load(&with("group.0.size", Tensor::zeros([2]))),
        format!("{what}group.0.size must be one number, it has shape [2]")
    );
    adam.load_state_dict(&good).unwrap();
}

#[test]
fn clipping_does_not_overflow_and_does_not_hide_a_nan() {
    let p = Param::new(Tensor::zeros(2));
    let mut grads = with_gradients(&[(&p, Tensor::new([3e30, 4e30f32]))]);
    let total: f64 = clip_grad_norm(&mut grads, [&p, &p], 1.0, 2.0).item();
    assert!((total / 5e30 - 1.0).abs() < 1e-6, "{total}");
    let clipped = grads.wrt(&p).to_vec::<f32>();
    assert!((clipped[0] - 0.6).abs() < 1e-6 && (clipped[1] - 0.8).abs() < 1e-6, "{clipped:?}");
    let mut grads = with_gradients(&[(&p, Tensor::new([f32::NAN, 1.0]))]);
    assert!(clip_grad_norm(&mut grads, [&p], 1.0, 2.0).item::<f64>().is_nan());
    assert!(grads.wrt(&p).to_vec::<f32>().iter().all(|g| g.is_nan()));
    let mut grads = with_gradients(&[(&p, Tensor::new([f32::NAN, -9.0]))]);
    clip_grad_value(&mut grads, [&p], 0.5);
    let g = grads.wrt(&p).to_vec::<f32>();
    assert!(g[0].is_nan() && g[1] == -0.5);
}

#[test]
fn clipping_leaves_other_parameters_and_other_holders_alone() {
    let [p, q] = [1, 2].map(|i| Param::new(noise([2, 2], i)));
    let g = Tensor::full([2, 2], 10.0);
    let mut grads = with_gradients(&[(&p, g.clone()), (&q, g.clone())]);
    assert!((clip_grad_norm(&mut grads, [&p], 1.0, 2.0).item::<f64>() - 20.0).abs() < 1e-5);
    assert_eq!(g.to_vec::<f32>(), [10.0; 4]);
    assert_eq!(grads.wrt(&q).to_vec::<f32>(), [10.0; 4]);
    assert!((grads.wrt(&p).to_vec::<f32>()[0] - 0.5).abs() < 1e-5);
}

#[test]
fn optimizers_that_share_parameters_do_not_wait_for_each_other_for_ever() {
    let params: Vec<Param> = (0..8).map(|i| Param::new(noise([2, 2], i))).collect();
    let train = |params: Vec<Param>| {
        move || {
            let zeros = |p: &Param| p.tensor() * 0.0;
            let grads = with_gradients(&params.iter().map(|p| (p, zeros(p))).collect::<Vec<_>>());
            let mut sgd = Sgd::new(params).lr(0.1);
            (0..2000).for_each(|_| sgd.step(&grads));
        }
    };
    let (done, all) = std::sync::mpsc::channel();
    for params in [params.clone(), params.into_iter().rev().collect()] {
        let (done, train) = (done.clone(), train(params));
        std::thread::spawn(move || {
            train();
            done.send(()).unwrap();
        });
    }
    for _ in 0..2 {
        all.recv_timeout(std::time::Duration::from_secs(120)).expect("both come to their end");
    }
}

#[test]
fn averages_are_put_in_and_out() {
    let p = Param::new(Tensor::zeros(2).to_dtype(DType::BF16));
    let mut ema = Ema::new([p.clone()], 0.75);
    ema.update();
    p.set(Tensor::ones(2).to_dtype(DType::BF16));
    ema.update();
    assert_eq!(ema.averages()[0].dtype(), DType::F32);
    assert_eq!(ema.with(|| p.tensor().to_f64_vec()), [0.25, 0.25]);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ema.with(|| panic!("in the middle"))));
    assert!(panicked.is_err());
    assert_eq!((p.tensor().dtype(), p.tensor().to_f64_vec()), (DType::BF16, vec![1.0, 1.0]));
    ema.swap_in();
    assert_eq!(message(|| ema.swap_in()), "Ema: swap_in, but the averages are swapped in already");
    assert_eq!(message(|| ema.update()), "Ema: update while the averages are swapped in: swap out first");
    ema.swap_out();
    assert_eq!(message(|| ema.swap_out()), "Ema: swap_out, but the averages are not swapped in");
    let saved = ema.state_dict();
    let mut other = Ema::new([p.clone()], 0.5);
    other.load_state_dict(&saved).unwrap();
    assert_eq!((other.updates(), other.averages()[0].to_f64_vec()), (2, vec![0.25, 0.25]));
    let mut wrong = Ema::new([Param::new(Tensor::zeros(3))], 0.5);
    assert_eq!(
        wrong.load_state_dict(&saved).unwrap_err().to_string(),
        "Ema: state dict: average.0 is [2], the parameter [3]"
    );
}

#[test]
fn newton_schulz_brings_singular_values_near_one() {
    for shape in [[6, 3], [3, 6], [4, 4]] {
        // Diagonal: the singular values are on the diagonal, and stay there.
        let mut values = vec![0.0f64; shape[0] * shape[1]];
        for i in 0..shape[0].min(shape[1]) {
            values[i * shape[1] + i] = [1e3, 700.0, 200.0, 100.0][i];
        }
        let x = newton_schulz(&Tensor::from_vec(values.clone(), shape), 5, 1e-7).to_vec::<f64>();
        for (x, v) in x.iter().zip(values) {
            let fine = if v == 0.0 { x.abs() < 1e-12 } else { (0.6..1.3).contains(x) };
            assert!(fine, "{shape:?}: {v} became {x}");
        }
    }
    let zero = newton_schulz(&Tensor::zeros([2, 3]), 5, 1e-7);
    assert_eq!(zero.to_vec::<f32>(), [0.0; 6]);
}
