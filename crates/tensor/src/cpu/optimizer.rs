//! Fused optimiser steps: one pass over the parameter, its gradient and its state.

use super::level::{Level, level};
use super::math::Real;
use super::rows::{PARALLEL_FROM, TASK};
use super::simd::simd_fn;
use crate::cpu::parallel::*;
pub use crate::ops::optimizer::{Adam, Sgd};

mod adaptive;
mod step;

pub(super) use step::step;

/// The numbers of an Adam step in the type of the slices.
#[derive(Clone, Copy)]
struct AdamStep<T> {
    beta2: T,
    one_minus_beta1: T,
    one_minus_beta2: T,
    eps: T,
    keep: T,
    l2: T,
    step_size: T,
    inv_sqrt_correction2: T,
}

simd_fn! {
    fn adam_kernel[S]<T: Real>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], a: AdamStep<T>) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = S::mul_add(a.l2, *p, g);
            let mean = S::mul_add(a.one_minus_beta1, g - *m, *m);
            let square = S::mul_add(a.one_minus_beta2 * g, g, a.beta2 * *v);
            let denominator = S::mul_add(square.sqrt(), a.inv_sqrt_correction2, a.eps);
            (*m, *v) = (mean, square);
            *p = *p * a.keep - a.step_size * (mean / denominator);
        }
    }
}

/// Adam (D. P. Kingma, J. Ba 2014, arXiv:1412.6980), or with `decoupled` AdamW (I. Loshchilov, F. Hutter 2017,
/// arXiv:1711.05101), in PyTorch's form:
///
/// `p ← (1 − lr·λ)·p` (decoupled) or `g ← g + λ·p`; `m ← m + (1 − β₁)(g − m)`; `v ← β₂·v + (1 − β₂)·g²`;
/// `p ← p − lr/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + eps)`.
pub fn adam<T: Real>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], options: &Adam) {
    adam_at(level(), p, g, m, v, options);
}

fn adam_at<T: Real>(level: Level, p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], o: &Adam) {
    assert!(g.len() == p.len() && m.len() == p.len() && v.len() == p.len());
    assert!(o.step > 0, "the first step is 1");
    let t = T::from_f64;
    let correction = |beta: f64| 1.0 - beta.powf(o.step as f64);
    let a = AdamStep {
        beta2: t(o.beta2),
        one_minus_beta1: t(1.0 - o.beta1),
        one_minus_beta2: t(1.0 - o.beta2),
        eps: t(o.eps),
        keep: t(if o.decoupled { 1.0 - o.lr * o.weight_decay } else { 1.0 }),
        l2: t(if o.decoupled { 0.0 } else { o.weight_decay }),
        step_size: t(o.lr / correction(o.beta1)),
        inv_sqrt_correction2: t(1.0 / correction(o.beta2).sqrt()),
    };
    if p.len() < PARALLEL_FROM {
        return adam_kernel(level, p, g, m, v, a);
    }
    p.par_chunks_mut(TASK)
        .zip(g.par_chunks(TASK))
        .zip(m.par_chunks_mut(TASK))
        .zip(v.par_chunks_mut(TASK))
        .for_each(|(((p, g), m), v)| adam_kernel(level, p, g, m, v, a));
}

#[derive(Clone, Copy)]
struct SgdStep<T> {
    lr: T,
    l2: T,
    momentum: T,
    fresh: T,
    look_ahead: T,
    nesterov: bool,
}

simd_fn! {
    fn sgd_plain_kernel[S]<T: Real>(p: &mut [T], g: &[T], a: SgdStep<T>) {
        for (p, &g) in p.iter_mut().zip(g) {
            let g = S::mul_add(a.l2, *p, g);
            *p = S::mul_add(-a.lr, g, *p);
        }
    }
}

simd_fn! {
    fn sgd_momentum_kernel[S]<T: Real>(p: &mut [T], g: &[T], buffer: &mut [T], a: SgdStep<T>) {
        for ((p, &g), b) in p.iter_mut().zip(g).zip(buffer) {
            let g = S::mul_add(a.l2, *p, g);
            let next = S::mul_add(a.momentum, *b, a.fresh * g);
            *b = next;
            let direction = if a.nesterov { S::mul_add(a.look_ahead, next, g) } else { next };
            *p = S::mul_add(-a.lr, direction, *p);
        }
    }
}

/// Stochastic gradient descent in PyTorch's form: `g ← g + λ·p`; with a momentum buffer b, `b ← μ·b + (1 − dampening)·g`
/// (`b ← g` at the first step), and the direction is b, or `g + μ·b` with Nesterov; `p ← p − lr·direction`.
pub fn sgd<T: Real>(p: &mut [T], g: &[T], buffer: Option<&mut [T]>, options: &Sgd) {
    sgd_at(level(), p, g, buffer, options);
}

fn sgd_at<T: Real>(level: Level, p: &mut [T], g: &[T], buffer: Option<&mut [T]>, o: &Sgd) {
    assert_eq!(g.len(), p.len());
    let t = T::from_f64;
    let a = SgdStep {
        lr: t(o.lr),
        l2: t(o.weight_decay),
        momentum: t(if o.first { 0.0 } else { o.momentum }),
        fresh: t(if o.first { 1.0 } else { 1.0 - o.dampening }),
        look_ahead: t(o.momentum),
        nesterov: o.nesterov,
    };
    let small = p.len() < PARALLEL_FROM;
    match buffer {
        None if small => sgd_plain_kernel(level, p, g, a),
        None => {
            p.par_chunks_mut(TASK).zip(g.par_chunks(TASK)).for_each(|(p, g)| sgd_plain_kernel(level, p, g, a));
        }
        Some(b) => {
            assert_eq!(b.len(), p.len());
            if o.first {
                // Whatever it held, NaN included, must not reach the sum as 0·b.
                b.fill(T::ZERO);
            }
            if small {
                return sgd_momentum_kernel(level, p, g, b, a);
            }
            p.par_chunks_mut(TASK)
                .zip(g.par_chunks(TASK))
                .zip(b.par_chunks_mut(TASK))
                .for_each(|((p, g), b)| sgd_momentum_kernel(level, p, g, b, a));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{LENGTHS, close, noise};

    #[test]
    fn adam_steps() {
        for level in Level::ALL {
            for n in LENGTHS.into_iter().chain([40_001]) {
                for decoupled in [false, true] {
                    let mut p = noise::<f32>(n, 1);
                    let mut want: Vec<f64> = p.iter().map(|&v| v as f64).collect();
                    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
                    let (mut mean, mut square) = (vec![0.0f64; n], vec![0.0f64; n]);
                    for step in 1..4 {
                        let (lr, b1, b2, eps, wd) = (0.01, 0.9, 0.999, 1e-8, 0.1);
                        let g = noise::<f32>(n, 10 + step);
                        let o =
                            Adam { lr, beta1: b1, beta2: b2, eps, weight_decay: wd, decoupled, amsgrad: false, step };
                        adam_at(level, &mut p, &g, &mut m, &mut v, &o);
                        for i in 0..n {
                            let mut g = g[i] as f64;
                            if decoupled {
                                want[i] *= 1.0 - lr * wd;
                            } else {
                                g += wd * want[i];
                            }
                            mean[i] = b1 * mean[i] + (1.0 - b1) * g;
                            square[i] = b2 * square[i] + (1.0 - b2) * g * g;
                            let m_hat = mean[i] / (1.0 - b1.powi(step as i32));
                            let v_hat = square[i] / (1.0 - b2.powi(step as i32));
                            want[i] -= lr * m_hat / (v_hat.sqrt() + eps);
                        }
                    }
                    // A gradient that cancels against λ·p is known only as well as its terms.
                    close(&p, &want, 1e-5, 2e-5);
                    close(&v, &square, 1e-4, 1e-9);
                }
            }
        }
    }

    #[test]
    fn sgd_steps() {
        for level in Level::ALL {
            for n in LENGTHS {
                for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
                    let mut p = noise::<f64>(n, 1);
                    let mut want = p.clone();
                    let (mut b, mut buffer) = (vec![f64::NAN; n], vec![0.0; n]);
                    for step in 0..3 {
                        let g = noise::<f64>(n, 20 + step);
                        let first = step == 0;
                        let o = Sgd { lr: 0.1, momentum, dampening: 0.0, weight_decay: 0.01, nesterov, first };
                        sgd_at(level, &mut p, &g, (momentum > 0.0).then_some(&mut b[..]), &o);
                        for i in 0..n {
                            let g = g[i] + 0.01 * want[i];
                            buffer[i] = if first { g } else { momentum * buffer[i] + g };
                            want[i] -= 0.1 * if nesterov { g + momentum * buffer[i] } else { buffer[i] };
                        }
                    }
                    close(&p, &want, 1e-13, 1e-15);
                }
            }
        }
    }
}
