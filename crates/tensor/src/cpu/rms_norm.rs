//! Root-mean-square normalisation over contiguous rows (B. Zhang, R. Sennrich 2019, arXiv:1910.07467).

use super::lanes;
use super::level::{Level, level};
use super::math::Real;
use super::reduce::{Partials, partial_sums};
use super::rows::{for_rows_stats, for_sums_stats};
use super::simd::simd_fn;

simd_fn! {
    fn forward_kernel[S]<T: Real>(x: &[T], weight: Option<&[T]>, eps: T, y: &mut [T], rstd: &mut [T], n: usize) {
        for ((x, y), rstd) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).zip(rstd) {
            let r = T::ONE / (lanes::sum_map(x, |x| x * x) / T::from_usize(n) + eps).sqrt();
            *rstd = r;
            match weight {
                Some(w) => {
                    for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                        *y = x * r * w;
                    }
                }
                None => {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = x * r;
                    }
                }
            }
        }
    }
}

simd_fn! {
    fn backward_kernel[S]<T: Real>(
        x: &[T], weight: Option<&[T]>, rstd: &[T], g: &[T], dx: &mut [T], sums: &mut Partials<'_, T>, n: usize,
    ) {
        let rows = x.chunks_exact(n).zip(g.chunks_exact(n)).zip(dx.chunks_exact_mut(n));
        for (((x, g), dx), &r) in rows.zip(rstd) {
            // dx holds g·w until its sum with x̂ is known.
            match weight {
                Some(w) => {
                    for ((dx, &g), &w) in dx.iter_mut().zip(g).zip(w) {
                        *dx = g * w;
                    }
                }
                None => dx.copy_from_slice(g),
            }
            let b = lanes::sum_map2(dx, x, |d, x| d * (x * r)) / T::from_usize(n);
            for (dx, &x) in dx.iter_mut().zip(x) {
                *dx = r * (*dx - x * r * b);
            }
            for ((s, &g), &x) in sums.first.iter_mut().zip(g).zip(x) {
                *s = S::mul_add(g, x * r, *s);
            }
        }
    }
}

/// `y = x·rstd·weight` over each row of `[rows, n]`, with `rstd = 1/√(mean x² + eps)`, which is written for
/// [`rms_norm_backward`]. `rstd.len()` is the number of rows; it is NaN if n = 0.
pub fn rms_norm<T: Real>(x: &[T], weight: Option<&[T]>, eps: T, y: &mut [T], rstd: &mut [T], n: usize) {
    rms_norm_at(level(), x, weight, eps, y, rstd, n);
}

fn rms_norm_at<T: Real>(level: Level, x: &[T], weight: Option<&[T]>, eps: T, y: &mut [T], rstd: &mut [T], n: usize) {
    assert!(x.len() == y.len() && y.len() == rstd.len() * n);
    assert!(weight.is_none_or(|w| w.len() == n), "weight has one element per column");
    for_rows_stats(y, rstd, &mut no_means(rstd.len()), n, |row, y, rstd, _| {
        if n == 0 {
            rstd.fill(T::NAN);
        } else {
            forward_kernel(level, &x[row * n..][..y.len()], weight, eps, y, rstd, n);
        }
    });
}

/// What takes the place of the means of `rows` rows in loops over norms.
fn no_means(rows: usize) -> Vec<()> {
    vec![(); rows]
}

/// [`rms_norm`] of `sum = x + residual`, which it writes first.
pub fn add_rms_norm<T: Real>(
    operands: [&[T]; 2],
    weight: Option<&[T]>,
    eps: T,
    sum: &mut [T],
    [y, rstd]: [&mut [T]; 2],
    n: usize,
) {
    let mut none = no_means(rstd.len());
    for_sums_stats(operands, sum, (y, rstd, &mut none), n, |sum, y, rstd, _| {
        rms_norm_at(level(), sum, weight, eps, y, rstd, n);
    });
}

/// With `x̂ = x·rstd`: `dx = rstd·(g·w − x̂·mean(g·w·x̂)) + others`, `dweight = Σ_rows g·x̂` (overwritten, summed in an order that
/// depends on the shape alone).
pub fn rms_norm_backward<T: Real>(
    x: &[T],
    weight: Option<&[T]>,
    rstd: &[T],
    g: &[T],
    others: Option<&[T]>,
    dx: &mut [T],
    dweight: Option<&mut [T]>,
    n: usize,
) {
    assert!(x.len() == rstd.len() * n && g.len() == x.len() && dx.len() == x.len());
    assert!(weight.is_none_or(|w| w.len() == n), "weight has one element per column");
    let level = level();
    partial_sums(dx, n, dweight, None, |row, dx, mut sums| {
        let part = row * n..row * n + dx.len();
        let stats = &rstd[row..row + dx.len() / n];
        backward_kernel(level, &x[part.clone()], weight, stats, &g[part.clone()], dx, &mut sums, n);
        if let Some(others) = others {
            dx.iter_mut().zip(&others[part]).for_each(|(dx, &more)| *dx += more);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{LENGTHS, check_gradient, close, noise, on_threads};

    #[test]
    fn forward_at_every_level() {
        for level in Level::ALL {
            for n in LENGTHS {
                let (x, w) = (noise::<f32>(3 * n, 1), noise::<f32>(n, 2));
                for w in [None, Some(&w[..])] {
                    let (mut y, mut rstd) = (vec![0.0; 3 * n], vec![0.0; 3]);
                    rms_norm_at(level, &x, w, 1e-5, &mut y, &mut rstd, n);
                    for (i, row) in x.chunks(n.max(1)).enumerate() {
                        let r = 1.0 / (row.iter().map(|&v| (v as f64).powi(2)).sum::<f64>() / n as f64 + 1e-5).sqrt();
                        let want: Vec<f64> =
                            (0..n).map(|j| row[j] as f64 * r * w.map_or(1.0, |w| w[j] as f64)).collect();
                        close(&y[i * n..][..n], &want, 2e-6, 0.0);
                        close(&rstd[i..=i], &[r], 1e-6, 0.0);
                    }
                }
            }
        }
    }

    #[test]
    fn backward_is_the_derivative() {
        let (rows, n) = (4, 13);
        let (x, g, w) = (noise::<f64>(rows * n, 2), noise::<f64>(rows * n, 3), noise::<f64>(n, 4));
        let run = |x: &[f64], w: &[f64]| {
            let (mut y, mut rstd) = (vec![0.0; x.len()], vec![0.0; rows]);
            rms_norm(x, Some(w), 1e-5, &mut y, &mut rstd, n);
            (y.iter().zip(&g).map(|(y, g)| y * g).sum::<f64>(), rstd)
        };
        let (mut dx, mut dw) = (vec![0.0; rows * n], vec![0.0; n]);
        rms_norm_backward(&x, Some(&w), &run(&x, &w).1, &g, None, &mut dx, Some(&mut dw), n);
        check_gradient(&x, &dx, |x| run(x, &w).0);
        check_gradient(&w, &dw, |w| run(&x, w).0);
    }

    #[test]
    fn threads_do_not_show() {
        let (rows, n) = (1500, 65);
        let (x, g) = (noise::<f32>(rows * n, 2), noise::<f32>(rows * n, 3));
        let run = || {
            let (mut rstd, mut dx, mut dw) = (vec![0.0; rows], vec![0.0; rows * n], vec![0.0; n]);
            rms_norm(&x, None, 1e-5, &mut dx, &mut rstd, n);
            rms_norm_backward(&x, None, &rstd, &g, None, &mut dx, Some(&mut dw), n);
            (dx, dw)
        };
        assert_eq!(on_threads(1, run), on_threads(4, run));
    }
}
