//! Softmax and cross-entropy in one pass over the logits, as PyTorch's `cross_entropy` with class indices.

use super::lanes;
use super::level::{Level, level};
use super::math::Real;
use super::rows::{PARALLEL_FROM, rows_per_task};
use super::simd::{Simd, simd_fn};
use crate::cpu::parallel::*;

/// What modifies the loss.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a, T> {
    /// Rows with this target count for nothing.
    pub ignore_index: i64,
    /// A weight per class, `[V]`.
    pub weight: Option<&'a [T]>,
    /// ε: the part of the target distribution that is spread evenly over all classes, in [0, 1].
    pub label_smoothing: T,
}

impl<T: Real> Default for Options<'_, T> {
    fn default() -> Self {
        Options { ignore_index: -100, weight: None, label_smoothing: T::ZERO }
    }
}

impl<T: Real> Options<'_, T> {
    fn class_weight(&self, class: usize) -> T {
        self.weight.map_or(T::ONE, |w| w[class])
    }
}

/// The position of the first target that is neither `ignore_index` nor in `0..v`.
pub fn check_targets(targets: &[i64], v: usize, ignore_index: i64) -> Result<(), usize> {
    match targets.iter().position(|&t| t != ignore_index && !(0..v as i64).contains(&t)) {
        Some(at) => Err(at),
        None => Ok(()),
    }
}

/// `Σ w[yᵢ]` over the rows that are not ignored: what the mean reduction divides by.
pub fn target_weight<T: Real>(targets: &[i64], options: &Options<'_, T>) -> T {
    let weights: Vec<T> =
        targets.iter().filter(|&&t| t != options.ignore_index).map(|&t| options.class_weight(t as usize)).collect();
    lanes::sum(&weights)
}

#[inline(always)]
fn forward_row<S: Simd, T: Real>(x: &[T], target: i64, options: &Options<'_, T>) -> (T, T) {
    let max = lanes::max(x);
    let log_sum = lanes::sum_map(x, |x| (x - max).exp::<S>()).log::<S>();
    let lse = max + log_sum;
    if target == options.ignore_index {
        return (T::ZERO, lse);
    }
    let y = target as usize;
    let eps = options.label_smoothing;
    // ln p, without first rounding max + log_sum.
    let mut loss = -(T::ONE - eps) * options.class_weight(y) * ((x[y] - max) - log_sum);
    if eps != T::ZERO {
        let spread = match options.weight {
            Some(w) => lanes::sum_map2(x, w, |x, w| w * ((x - max) - log_sum)),
            None => lanes::sum_map(x, |x| (x - max) - log_sum),
        };
        loss -= eps / T::from_usize(x.len()) * spread;
    }
    (loss, lse)
}

simd_fn! {
    fn forward_kernel[S]<T: Real>(
        x: &[T], targets: &[i64], options: &Options<'_, T>, loss: &mut [T], lse: &mut [T], v: usize,
    ) {
        for ((x, &target), (loss, lse)) in x.chunks_exact(v).zip(targets).zip(loss.iter_mut().zip(lse)) {
            (*loss, *lse) = forward_row::<S, T>(x, target, options);
        }
    }
}

simd_fn! {
    fn backward_kernel[S]<T: Real>(
        x: &[T], targets: &[i64], lse: &[T], scale: &[T], weight_sum: T, options: &Options<'_, T>, dx: &mut [T], v: usize,
    ) {
        let rows = x.chunks_exact(v).zip(dx.chunks_exact_mut(v)).zip(targets.iter().zip(lse.iter().zip(scale)));
        for ((x, dx), (&target, (&lse, &scale))) in rows {
            if target == options.ignore_index {
                dx.fill(T::ZERO);
                continue;
            }
            let y = target as usize;
            let even = options.label_smoothing / T::from_usize(v);
            let hit = (T::ONE - options.label_smoothing) * options.class_weight(y);
            // What multiplies the softmax: the whole mass of the weighted target distribution.
            let mass = scale * (hit + even * weight_sum);
            match options.weight {
                Some(w) if even != T::ZERO => {
                    for ((dx, &x), &w) in dx.iter_mut().zip(x).zip(w) {
                        *dx = mass * (x - lse).exp::<S>() - scale * even * w;
                    }
                }
                _ => {
                    for (dx, &x) in dx.iter_mut().zip(x) {
                        *dx = mass * (x - lse).exp::<S>() - scale * even;
                    }
                }
            }
            dx[y] -= scale * hit;
        }
    }
}

/// Per row i of the logits `x = [rows, V]`, with `ln p = x − logsumexp x` and ε the label smoothing:
///
/// `lossᵢ = −(1 − ε)·w[yᵢ]·ln p[yᵢ] − ε/V · Σ_c w[c]·ln p[c]`, and 0 where `yᵢ = ignore_index`.
///
/// Also writes each row's logsumexp, which [`cross_entropy_backward`] wants. The mean reduction is
/// `Σ loss / `[`target_weight`]. Targets must have passed [`check_targets`]; another index panics.
pub fn cross_entropy<T: Real>(
    x: &[T],
    targets: &[i64],
    options: &Options<'_, T>,
    loss: &mut [T],
    lse: &mut [T],
    v: usize,
) {
    cross_entropy_at(level(), x, targets, options, loss, lse, v);
}

fn cross_entropy_at<T: Real>(
    level: Level,
    x: &[T],
    targets: &[i64],
    options: &Options<'_, T>,
    loss: &mut [T],
    lse: &mut [T],
    v: usize,
) {
    let count = targets.len();
    assert!(x.len() == count * v && loss.len() == count && lse.len() == count);
    assert!(options.weight.is_none_or(|w| w.len() == v), "weight has one element per class");
    if v == 0 {
        // No class: every row must be ignored.
        assert!(check_targets(targets, 0, options.ignore_index).is_ok(), "target out of range: there is no class");
        loss.fill(T::ZERO);
        lse.fill(T::NEG_INFINITY);
    } else if x.len() < PARALLEL_FROM {
        forward_kernel(level, x, targets, options, loss, lse, v);
    } else {
        let rows = rows_per_task(v);
        x.par_chunks(rows * v)
            .zip(targets.par_chunks(rows))
            .zip(loss.par_chunks_mut(rows))
            .zip(lse.par_chunks_mut(rows))
            .for_each(|(((x, t), loss), lse)| forward_kernel(level, x, t, options, loss, lse, v));
    }
}

/// `dx[i, c] = scaleᵢ·(p[c]·mᵢ − (1 − ε)·w[yᵢ]·[c = yᵢ] − ε/V·w[c])` with `p = softmax(x) = e^{x − lse}` and
/// `mᵢ = (1 − ε)·w[yᵢ] + ε/V·Σ_c w[c]`; 0 in ignored rows. `scale` is the gradient that reached each row's loss (for the
/// mean reduction: the upstream gradient over [`target_weight`]).
pub fn cross_entropy_backward<T: Real>(
    x: &[T],
    targets: &[i64],
    lse: &[T],
    scale: &[T],
    options: &Options<'_, T>,
    dx: &mut [T],
    v: usize,
) {
    let count = targets.len();
    assert!(x.len() == count * v && dx.len() == x.len() && lse.len() == count && scale.len() == count);
    assert!(options.weight.is_none_or(|w| w.len() == v), "weight has one element per class");
    if x.is_empty() {
        return;
    }
    let weight_sum = options.weight.map_or(T::from_usize(v), lanes::sum);
    let (level, rows) = (level(), rows_per_task(v));
    if x.len() < PARALLEL_FROM {
        return backward_kernel(level, x, targets, lse, scale, weight_sum, options, dx, v);
    }
    x.par_chunks(rows * v)
        .zip(dx.par_chunks_mut(rows * v))
        .zip(targets.par_chunks(rows))
        .zip(lse.par_chunks(rows).zip(scale.par_chunks(rows)))
        .for_each(|(((x, dx), t), (lse, scale))| {
            backward_kernel(level, x, t, lse, scale, weight_sum, options, dx, v);
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{check_gradient, close, noise, on_threads};

    fn reference(x: &[f64], target: usize, weight: Option<&[f64]>, eps: f64) -> f64 {
        let lse = x.iter().map(|v| v.exp()).sum::<f64>().ln();
        let w = |c: usize| weight.map_or(1.0, |w| w[c]);
        let spread: f64 = x.iter().enumerate().map(|(c, v)| w(c) * (v - lse)).sum();
        -(1.0 - eps) * w(target) * (x[target] - lse) - eps / x.len() as f64 * spread
    }

    #[test]
    fn forward_at_every_level() {
        for level in Level::ALL {
            for v in [1, 7, 15, 16, 17, 31, 63, 64, 65, 1000] {
                let x: Vec<f32> = noise::<f32>(3 * v, 1).iter().map(|x| 5.0 * x).collect();
                let w: Vec<f32> = noise::<f32>(v, 2).iter().map(|x| x + 1.1).collect();
                let wide = |x: &[f32]| x.iter().map(|&v| v as f64).collect::<Vec<_>>();
                let targets = [v as i64 / 2, -100, v as i64 - 1];
                for weight in [None, Some(&w[..])] {
                    for eps in [0.0, 0.1, 1.0] {
                        let options = Options { weight, label_smoothing: eps, ..Default::default() };
                        let (mut loss, mut lse) = ([0.0; 3], [0.0; 3]);
                        cross_entropy_at(level, &x, &targets, &options, &mut loss, &mut lse, v);
                        let w = weight.map(wide);
                        let want = [0, 1, 2].map(|i| match targets[i] {
                            -100 => 0.0,
                            t => reference(&wide(&x[i * v..][..v]), t as usize, w.as_deref(), eps as f64),
                        });
                        close(&loss, &want, 3e-6, 3e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn backward_is_the_derivative() {
        let (rows, v) = (4, 9);
        let (x, scale) = (noise::<f64>(rows * v, 1), noise::<f64>(rows, 3));
        let w: Vec<f64> = noise::<f64>(v, 2).iter().map(|x| x + 1.1).collect();
        let targets = [0, 8, 7, 3];
        for weight in [None, Some(&w[..])] {
            for label_smoothing in [0.0, 0.2] {
                let options = Options { ignore_index: 7, weight, label_smoothing };
                let run = |x: &[f64]| {
                    let (mut loss, mut lse) = (vec![0.0; rows], vec![0.0; rows]);
                    cross_entropy(x, &targets, &options, &mut loss, &mut lse, v);
                    (loss.iter().zip(&scale).map(|(l, s)| l * s).sum::<f64>(), lse)
                };
                let mut dx = vec![0.0; rows * v];
                cross_entropy_backward(&x, &targets, &run(&x).1, &scale, &options, &mut dx, v);
                check_gradient(&x, &dx, |x| run(x).0);
            }
        }
    }

    /// PyTorch's documentation: the mean divides by the weights of the targets that count.
    #[test]
    fn mean_reduction() {
        let options = Options { weight: Some(&[1.0, 2.0, 4.0]), ..Options::<f64>::default() };
        assert_eq!(target_weight(&[0, 2, -100, 2], &options), 9.0);
        assert_eq!(check_targets(&[0, -100, 3], 3, -100), Err(2));
        assert_eq!(check_targets(&[0, -100, 2], 3, -100), Ok(()));
    }

    #[test]
    fn threads_do_not_show() {
        let (rows, v) = (70, 1001);
        let x = noise::<f32>(rows * v, 1);
        let targets: Vec<i64> = (0..rows as i64).collect();
        let run = || {
            let (mut loss, mut lse, mut dx) = (vec![0.0; rows], vec![0.0; rows], vec![0.0; rows * v]);
            let options = Options { label_smoothing: 0.1, ..Default::default() };
            cross_entropy(&x, &targets, &options, &mut loss, &mut lse, v);
            cross_entropy_backward(&x, &targets, &lse, &loss, &options, &mut dx, v);
            (loss, lse, dx)
        };
        assert_eq!(on_threads(1, run), on_threads(4, run));
    }
}
