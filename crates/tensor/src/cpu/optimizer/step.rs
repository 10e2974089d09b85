//! Optimiser steps of tensors, on top of the loops over slices.

use super::adaptive;
use crate::cpu::level::{Level, level};
use crate::cpu::math::Real;
use crate::cpu::parallel::*;
use crate::cpu::rows::{PARALLEL_FROM, TASK};
use crate::ops::optimizer::OptimizerStep;
use crate::{DType, Tensor};
use bytemuck::Pod;

/// One step in place; see [`Backend::optimizer_step`](crate::backend::Backend::optimizer_step).
pub fn step(rule: &OptimizerStep, p: &mut Tensor, g: &Tensor, state: &mut [Tensor]) -> bool {
    match p.dtype() {
        DType::F32 => run::<f32>(level(), rule, p, g, state),
        DType::F64 => run::<f64>(level(), rule, p, g, state),
        _ => return false,
    }
    true
}

/// Calls `f` over pieces of slices of one length, in parallel when there is much to do; the elements are independent.
fn pieces<T: Real, const N: usize>(
    mut p: &mut [T],
    mut g: &[T],
    mut state: [&mut [T]; N],
    f: impl Fn(&mut [T], &[T], [&mut [T]; N]) + Sync,
) {
    assert!(g.len() == p.len() && state.iter().all(|s| s.len() == p.len()));
    if p.len() < PARALLEL_FROM {
        return f(p, g, state);
    }
    let mut tasks = Vec::with_capacity(p.len().div_ceil(TASK));
    while !p.is_empty() {
        let n = TASK.min(p.len());
        let (p0, p1) = p.split_at_mut(n);
        let (g0, g1) = g.split_at(n);
        let mut rest = state.map(|s| s.split_at_mut(n));
        let s0 = std::array::from_fn(|i| std::mem::take(&mut rest[i].0));
        state = rest.map(|(_, after)| after);
        tasks.push((p0, g0, s0));
        (p, g) = (p1, g1);
    }
    tasks.into_par_iter().for_each(|(p, g, s)| f(p, g, s));
}

fn run<T: Real + Pod>(level: Level, rule: &OptimizerStep, p: &mut Tensor, g: &Tensor, state: &mut [Tensor]) {
    let t = T::from_f64;
    let g = g.contiguous_slice::<T>();
    let p = p.unique_slice_mut::<T>().expect("the parameter is not shared");
    let mut state = state.iter_mut().map(|s| s.unique_slice_mut::<T>().expect("the state is not shared"));
    let mut next = || state.next().expect("the op has counted the state tensors");
    match *rule {
        OptimizerStep::Sgd(o) => super::sgd(p, g, (o.momentum != 0.0).then(next), &o),
        OptimizerStep::Adam(o) if o.amsgrad => {
            let correction = |beta: f64| 1.0 - beta.powf(o.step as f64);
            let a = adaptive::AmsGrad {
                one_minus_beta1: t(1.0 - o.beta1),
                beta2: t(o.beta2),
                one_minus_beta2: t(1.0 - o.beta2),
                eps: t(o.eps),
                keep: t(if o.decoupled { 1.0 - o.lr * o.weight_decay } else { 1.0 }),
                l2: t(if o.decoupled { 0.0 } else { o.weight_decay }),
                step_size: t(o.lr / correction(o.beta1)),
                inv_sqrt_correction2: t(1.0 / correction(o.beta2).sqrt()),
            };
            let state = [next(), next(), next()];
            pieces(p, g, state, |p, g, [m, v, largest]| adaptive::amsgrad(level, p, g, m, v, largest, a));
        }
        OptimizerStep::Adam(o) => super::adam(p, g, next(), next(), &o),
        OptimizerStep::RmsProp(o) => {
            let a = adaptive::RmsProp {
                lr: t(o.lr),
                alpha: t(o.alpha),
                one_minus_alpha: t(1.0 - o.alpha),
                eps: t(o.eps),
                l2: t(o.weight_decay),
                momentum: t(o.momentum),
            };
            match (o.centered, o.momentum != 0.0) {
                (false, false) => pieces(p, g, [next()], |p, g, [v]| adaptive::rmsprop(level, p, g, v, a)),
                (true, false) => pieces(p, g, [next(), next()], |p, g, [v, mean]| {
                    adaptive::rmsprop_centered(level, p, g, v, mean, a)
                }),
                (false, true) => pieces(p, g, [next(), next()], |p, g, [v, buffer]| {
                    adaptive::rmsprop_momentum(level, p, g, v, buffer, a)
                }),
                (true, true) => pieces(p, g, [next(), next(), next()], |p, g, [v, mean, buffer]| {
                    adaptive::rmsprop_centered_momentum(level, p, g, v, mean, buffer, a)
                }),
            }
        }
        OptimizerStep::Adagrad(o) => {
            let lr = t(o.lr / (1.0 + (o.step - 1) as f64 * o.lr_decay));
            let (eps, l2) = (t(o.eps), t(o.weight_decay));
            pieces(p, g, [next()], |p, g, [sum]| adaptive::adagrad(level, p, g, sum, lr, eps, l2));
        }
        OptimizerStep::Adadelta(o) => {
            let (lr, rho, eps, l2) = (t(o.lr), t(o.rho), t(o.eps), t(o.weight_decay));
            pieces(p, g, [next(), next()], |p, g, [v, u]| adaptive::adadelta(level, p, g, v, u, lr, rho, eps, l2));
        }
        OptimizerStep::Lion(o) => {
            let (lr, beta1, beta2, decay) = (t(o.lr), t(o.beta1), t(o.beta2), t(o.weight_decay));
            pieces(p, g, [next()], |p, g, [m]| adaptive::lion(level, p, g, m, lr, beta1, beta2, decay));
        }
        OptimizerStep::Lerp { weight } => {
            pieces(p, g, [], |p, g, []| adaptive::lerp(level, p, g, t(weight)));
        }
        OptimizerStep::ScaleAdd { keep, scale } => {
            pieces(p, g, [], |p, g, []| adaptive::scale_add(level, p, g, t(keep), t(scale)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::noise;
    use crate::ops::optimizer::*;

    /// Every rule with every combination of its switches.
    fn rules(step: u64) -> Vec<OptimizerStep> {
        let mut rules = vec![
            OptimizerStep::Adagrad(Adagrad { lr: 0.1, lr_decay: 0.1, eps: 1e-8, weight_decay: 0.1, step }),
            OptimizerStep::Adadelta(Adadelta { lr: 1.0, rho: 0.9, eps: 1e-4, weight_decay: 0.1 }),
            OptimizerStep::Lion(Lion { lr: 0.01, beta1: 0.9, beta2: 0.99, weight_decay: 0.1 }),
            OptimizerStep::Lerp { weight: 0.3 },
            OptimizerStep::ScaleAdd { keep: 0.9, scale: -0.2 },
            OptimizerStep::Sgd(Sgd {
                lr: 0.1,
                momentum: 0.0,
                dampening: 0.0,
                weight_decay: 0.1,
                nesterov: false,
                first: step == 1,
            }),
        ];
        for (a, b) in [(false, false), (false, true), (true, false), (true, true)] {
            let momentum = if b { 0.9 } else { 0.0 };
            let (beta1, beta2, eps, weight_decay) = (0.9, 0.8, 1e-6, 0.1);
            rules.extend([
                OptimizerStep::Adam(Adam { lr: 0.01, beta1, beta2, eps, weight_decay, decoupled: a, amsgrad: b, step }),
                OptimizerStep::RmsProp(RmsProp { lr: 0.01, alpha: 0.9, eps, weight_decay, momentum, centered: a }),
                OptimizerStep::Sgd(Sgd {
                    lr: 0.1,
                    momentum: 0.9,
                    dampening: if a { 0.0 } else { 0.3 },
                    weight_decay,
                    nesterov: a && b,
                    first: step == 1,
                }),
            ]);
        }
        rules
    }

    #[test]
    fn fused_equals_composed() {
        for n in [0, 1, 7, 16, 33, 100, 70_000] {
            for case in 0..rules(1).len() {
                let start = Tensor::from_vec(noise::<f64>(n, 1), n);
                let states = rules(1)[case].states();
                let (mut p, mut want) = (start.copy(), start.copy());
                let mut state: Vec<Tensor> = (0..states).map(|_| start.zeros_like()).collect();
                let mut wanted = state.clone();
                for step in 1..4 {
                    let rule = rules(step)[case];
                    let g = Tensor::from_vec(noise::<f64>(n, 10 + step), n);
                    rule.apply(&mut p, &g, &mut state);
                    rule.composed(&mut want, &g, &mut wanted);
                }
                let close = |a: &Tensor, b: &Tensor, what: &str| {
                    for (a, b) in a.to_vec::<f64>().into_iter().zip(b.to_vec::<f64>()) {
                        // Each step rounds a handful of times; a division by a small root magnifies that.
                        assert!(
                            (a - b).abs() <= 1e-9 * b.abs().max(1e-3),
                            "{:?} n={n} {what}: {a} ≠ {b}",
                            rules(3)[case]
                        );
                    }
                };
                close(&p, &want, "p");
                state.iter().zip(&wanted).for_each(|(a, b)| close(a, b, "state"));
            }
        }
    }

    #[test]
    fn every_level_agrees() {
        for n in [1, 33, 40_001] {
            for rule in rules(2) {
                let start = Tensor::from_vec(noise::<f32>(n, 1), n);
                let g = Tensor::from_vec(noise::<f32>(n, 2), n);
                let square = start.square();
                let results = Level::ALL.map(|level| {
                    let mut p = start.copy();
                    let mut state: Vec<Tensor> = (0..rule.states()).map(|_| square.copy()).collect();
                    run::<f32>(level, &rule, &mut p, &g, &mut state);
                    p.to_vec::<f32>()
                });
                for other in &results[1..] {
                    for (a, b) in results[0].iter().zip(other) {
                        // v − a² of a centred RMSprop cancels: the level's one or two roundings show magnified.
                        assert!((a - b).abs() <= 2e-3 * b.abs().max(0.1), "{rule:?}: {a} ≠ {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn half_types_compute_in_f32_and_stay_in_place() {
        for dtype in [DType::BF16, DType::F16] {
            for rule in rules(1) {
                let start = Tensor::from_vec(noise::<f32>(50, 1), [10, 5]).to_dtype(dtype);
                let g = Tensor::from_vec(noise::<f32>(50, 2), [5, 10]).t();
                let mut p = start.copy();
                let address = std::sync::Arc::as_ptr(p.buffer()).cast::<u8>();
                let zeros = start.to_dtype(DType::F32).zeros_like();
                let mut state: Vec<Tensor> = (0..rule.states()).map(|_| zeros.copy()).collect();
                let (mut wide, mut wide_state) = (start.to_dtype(DType::F32), state.clone());
                rule.apply(&mut p, &g.to_dtype(dtype).to_dtype(DType::F32), &mut state);
                rule.apply(&mut wide, &g.to_dtype(dtype), &mut wide_state);
                assert_eq!(p.to_f64_vec(), wide.to_dtype(dtype).to_f64_vec(), "{rule:?}");
                assert_eq!(std::sync::Arc::as_ptr(p.buffer()).cast::<u8>(), address);
            }
        }
    }

    #[test]
    fn a_nan_is_not_hidden() {
        for rule in rules(1).into_iter().filter(|r| r.states() > 0) {
            let mut p = Tensor::ones(3);
            let g = Tensor::new([1.0, f32::NAN, 1.0]);
            let mut state: Vec<Tensor> = (0..rule.states()).map(|_| Tensor::zeros(3)).collect();
            rule.apply(&mut p, &g, &mut state);
            let p = p.to_vec::<f32>();
            assert!(p[0].is_finite() && p[1].is_nan() && p[2].is_finite(), "{rule:?}: {p:?}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let rule = OptimizerStep::Lion(Lion { lr: 0.1, beta1: 0.9, beta2: 0.99, weight_decay: 0.0 });
        let text = |p: Tensor, g: Tensor, s: Vec<Tensor>| {
            let (mut p, mut s) = (p, s);
            crate::catch(|| rule.apply(&mut p, &g, &mut s)).unwrap_err().to_string()
        };
        let z = || Tensor::zeros([2, 3]);
        assert_eq!(text(z(), Tensor::zeros(3), vec![z()]), "lion: the parameter is [2, 3], its gradient [3]");
        assert_eq!(text(z(), z(), vec![]), "lion: needs 1 state tensors, got 0");
        assert_eq!(text(z(), z(), vec![Tensor::zeros(2)]), "lion: the parameter is [2, 3], its state [2]");
        let doubles = z().to_dtype(DType::F64);
        assert_eq!(text(z(), z(), vec![doubles]), "lion: a parameter of f32 needs state of f32, got f64");
        let whole = z().to_dtype(DType::I64);
        assert_eq!(text(whole, z(), vec![z()]), "lion: updates floats, got a parameter of i64");
    }
}
