//! Softmax and log-softmax over contiguous rows.

use super::lanes;
use super::level::{Level, level};
use super::math::Real;
use super::rows::for_rows;
use super::simd::simd_fn;

simd_fn! {
    fn softmax_kernel[S]<T: Real>(x: &[T], y: &mut [T], n: usize) {
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            let max = lanes::max(x);
            for (y, &x) in y.iter_mut().zip(x) {
                *y = (x - max).exp::<S>();
            }
            let scale = T::ONE / lanes::sum(y);
            for y in y {
                *y *= scale;
            }
        }
    }
}

simd_fn! {
    fn log_softmax_kernel[S]<T: Real>(x: &[T], y: &mut [T], n: usize) {
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            let max = lanes::max(x);
            let log_sum = lanes::sum_map(x, |x| (x - max).exp::<S>()).log::<S>();
            for (y, &x) in y.iter_mut().zip(x) {
                *y = (x - max) - log_sum;
            }
        }
    }
}

simd_fn! {
    fn softmax_backward_kernel[S]<T: Real>(y: &[T], g: &[T], dx: &mut [T], n: usize) {
        for ((y, g), dx) in y.chunks_exact(n).zip(g.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
            let dot = lanes::sum_map2(y, g, |y, g| y * g);
            for ((dx, &y), &g) in dx.iter_mut().zip(y).zip(g) {
                *dx = y * (g - dot);
            }
        }
    }
}

simd_fn! {
    fn log_softmax_backward_kernel[S]<T: Real>(y: &[T], g: &[T], dx: &mut [T], n: usize) {
        for ((y, g), dx) in y.chunks_exact(n).zip(g.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
            let sum = lanes::sum(g);
            for ((dx, &y), &g) in dx.iter_mut().zip(y).zip(g) {
                *dx = g - y.exp::<S>() * sum;
            }
        }
    }
}

/// `y = e^{x − max x} / Σ e^{x − max x}` over each row of `[rows, n]`. A row of nothing but −∞, or with +∞ or NaN in it,
/// gives NaN, as in PyTorch.
pub fn softmax<T: Real>(x: &[T], y: &mut [T], n: usize) {
    softmax_at(level(), x, y, n);
}

fn softmax_at<T: Real>(level: Level, x: &[T], y: &mut [T], n: usize) {
    assert_eq!(x.len(), y.len());
    for_rows(y, n, |row, y| softmax_kernel(level, &x[row * n..][..y.len()], y, n));
}

/// `y = x − max x − ln Σ e^{x − max x}` over each row of `[rows, n]`.
pub fn log_softmax<T: Real>(x: &[T], y: &mut [T], n: usize) {
    log_softmax_at(level(), x, y, n);
}

fn log_softmax_at<T: Real>(level: Level, x: &[T], y: &mut [T], n: usize) {
    assert_eq!(x.len(), y.len());
    for_rows(y, n, |row, y| log_softmax_kernel(level, &x[row * n..][..y.len()], y, n));
}

/// `dx = y·(g − Σ g·y)` from the softmax `y` and the gradient `g` that reached it.
pub fn softmax_backward<T: Real>(y: &[T], g: &[T], dx: &mut [T], n: usize) {
    assert!(y.len() == dx.len() && g.len() == dx.len());
    let level = level();
    for_rows(dx, n, |row, dx| {
        let part = row * n..row * n + dx.len();
        softmax_backward_kernel(level, &y[part.clone()], &g[part], dx, n);
    });
}

/// `dx = g − eʸ·Σ g` from the log-softmax `y` and the gradient `g` that reached it.
pub fn log_softmax_backward<T: Real>(y: &[T], g: &[T], dx: &mut [T], n: usize) {
    assert!(y.len() == dx.len() && g.len() == dx.len());
    let level = level();
    for_rows(dx, n, |row, dx| {
        let part = row * n..row * n + dx.len();
        log_softmax_backward_kernel(level, &y[part.clone()], &g[part], dx, n);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{LENGTHS, close, noise, on_threads};

    fn reference(x: &[f32], n: usize) -> Vec<f64> {
        let mut y = Vec::new();
        for row in x.chunks(n.max(1)) {
            let max = row.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v as f64));
            let sum: f64 = row.iter().map(|&v| (v as f64 - max).exp()).sum();
            y.extend(row.iter().map(|&v| (v as f64 - max).exp() / sum));
        }
        y
    }

    #[test]
    fn forward_at_every_level() {
        for level in Level::ALL {
            for n in LENGTHS {
                let x: Vec<f32> = noise::<f32>(3 * n, 1).iter().map(|v| v * 8.0).collect();
                let (mut y, mut l) = (vec![0.0; 3 * n], vec![0.0; 3 * n]);
                softmax_at(level, &x, &mut y, n);
                log_softmax_at(level, &x, &mut l, n);
                let want = reference(&x, n);
                close(&y, &want, 2e-6, 0.0);
                close(&l, &want.iter().map(|v| v.ln()).collect::<Vec<_>>(), 1e-6, 2e-6);
            }
        }
    }

    #[test]
    fn backward_is_the_derivative() {
        let n = 17;
        let (x, g) = (noise::<f64>(2 * n, 2), noise::<f64>(2 * n, 3));
        type Forward = fn(&[f64], &mut [f64], usize);
        type Backward = fn(&[f64], &[f64], &mut [f64], usize);
        let pairs: [(Forward, Backward); 2] =
            [(softmax::<f64>, softmax_backward::<f64>), (log_softmax::<f64>, log_softmax_backward::<f64>)];
        for (forward, backward) in pairs {
            let loss = |x: &[f64]| {
                let mut y = vec![0.0; x.len()];
                forward(x, &mut y, n);
                y.iter().zip(&g).map(|(y, g)| y * g).sum::<f64>()
            };
            let (mut y, mut dx) = (vec![0.0; 2 * n], vec![0.0; 2 * n]);
            forward(&x, &mut y, n);
            backward(&y, &g, &mut dx, n);
            crate::cpu::testing::check_gradient(&x, &dx, loss);
        }
    }

    proptest::proptest! {
        #[test]
        fn rows_are_distributions(rows in 0usize..5, n in 1usize..200, scale in 0.01f32..100.0, seed in 1u64..1000) {
            let x: Vec<f32> = noise::<f32>(rows * n, seed).iter().map(|v| v * scale).collect();
            let (mut y, mut l) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            softmax(&x, &mut y, n);
            log_softmax(&x, &mut l, n);
            for row in y.chunks(n) {
                proptest::prop_assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
            // ln p is at most 2·scale + ln n in magnitude, and known to as many ulps of that.
            close(&l, &reference(&x, n).iter().map(|v| v.ln()).collect::<Vec<_>>(), 1e-6, 1e-6 * (1.0 + scale as f64));
        }
    }

    #[test]
    fn infinities_and_nan() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for row in [[-inf; 3], [0.0, inf, 1.0], [0.0, nan, 1.0]] {
            let mut y = [0.0; 3];
            softmax(&row, &mut y, 3);
            assert!(y.iter().all(|v| v.is_nan()), "{row:?} {y:?}");
        }
        let mut y = [0.0; 3];
        softmax(&[-inf, 1e30, -1e30], &mut y, 3);
        assert_eq!(y, [0.0, 1.0, 0.0]);
    }

    #[test]
    fn threads_do_not_show() {
        let x: Vec<f32> = noise(301 * 333, 5);
        let run = || {
            let mut y = vec![0.0; x.len()];
            softmax(&x, &mut y, 333);
            y
        };
        assert_eq!(on_threads(1, run), on_threads(3, run));
    }
}
