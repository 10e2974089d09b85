//! Layer normalisation over contiguous rows (J. L. Ba, J. R. Kiros, G. E. Hinton 2016, arXiv:1607.06450).

use super::lanes;
use super::level::{Level, level};
use super::math::Real;
use super::reduce::{Partials, partial_sums};
use super::rows::{for_rows_stats, for_sums_stats};
use super::simd::simd_fn;

simd_fn! {
    fn forward_kernel[S]<T: Real>(
        x: &[T], weight: Option<&[T]>, bias: Option<&[T]>, eps: T, y: &mut [T], mean: &mut [T], rstd: &mut [T], n: usize,
    ) {
        let rows = x.chunks_exact(n).zip(y.chunks_exact_mut(n));
        for ((x, y), (mean, rstd)) in rows.zip(mean.iter_mut().zip(rstd)) {
            let m = lanes::sum(x) / T::from_usize(n);
            let variance = lanes::sum_map(x, |x| (x - m) * (x - m)) / T::from_usize(n);
            let r = T::ONE / (variance + eps).sqrt();
            (*mean, *rstd) = (m, r);
            match (weight, bias) {
                (Some(w), Some(b)) => {
                    for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(w).zip(b) {
                        *y = S::mul_add((x - m) * r, w, b);
                    }
                }
                (Some(w), None) => {
                    for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                        *y = (x - m) * r * w;
                    }
                }
                (None, Some(b)) => {
                    for ((y, &x), &b) in y.iter_mut().zip(x).zip(b) {
                        *y = S::mul_add(x - m, r, b);
                    }
                }
                (None, None) => {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = (x - m) * r;
                    }
                }
            }
        }
    }
}

simd_fn! {
    fn backward_kernel[S]<T: Real>(
        x: &[T], weight: Option<&[T]>, mean: &[T], rstd: &[T], g: &[T], dx: &mut [T], sums: &mut Partials<'_, T>, n: usize,
    ) {
        let rows = x.chunks_exact(n).zip(g.chunks_exact(n)).zip(dx.chunks_exact_mut(n));
        let count = T::from_usize(n);
        for (((x, g), dx), (&m, &r)) in rows.zip(mean.iter().zip(rstd)) {
            // dx holds g·w until the two sums are known.
            match weight {
                Some(w) => {
                    for ((dx, &g), &w) in dx.iter_mut().zip(g).zip(w) {
                        *dx = g * w;
                    }
                }
                None => dx.copy_from_slice(g),
            }
            let a = lanes::sum(dx) / count;
            let b = lanes::sum_map2(dx, x, |d, x| d * ((x - m) * r)) / count;
            for (dx, &x) in dx.iter_mut().zip(x) {
                *dx = r * (*dx - a - (x - m) * r * b);
            }
            for ((s, &g), &x) in sums.first.iter_mut().zip(g).zip(x) {
                *s = S::mul_add(g, (x - m) * r, *s);
            }
            for (s, &g) in sums.second.iter_mut().zip(g) {
                *s += g;
            }
        }
    }
}

/// `y = (x − mean)·rstd·weight + bias` over each row of `[rows, n]`, with `rstd = 1/√(variance + eps)` and the variance
/// over n, in two passes. Writes each row's mean and rstd, which [`layer_norm_backward`] wants. `mean.len()` is the number
/// of rows; with n = 0 both statistics are NaN.
pub fn layer_norm<T: Real>(
    x: &[T],
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    eps: T,
    y: &mut [T],
    mean: &mut [T],
    rstd: &mut [T],
    n: usize,
) {
    layer_norm_at(level(), x, weight, bias, eps, y, mean, rstd, n);
}

fn layer_norm_at<T: Real>(
    level: Level,
    x: &[T],
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    eps: T,
    y: &mut [T],
    mean: &mut [T],
    rstd: &mut [T],
    n: usize,
) {
    assert_eq!(x.len(), y.len());
    assert!([weight, bias].iter().flatten().all(|p| p.len() == n), "weight and bias have one element per column");
    for_rows_stats(y, mean, rstd, n, |row, y, mean, rstd| {
        if n == 0 {
            mean.fill(T::NAN);
            rstd.fill(T::NAN);
        } else {
            forward_kernel(level, &x[row * n..][..y.len()], weight, bias, eps, y, mean, rstd, n);
        }
    });
}

/// [`layer_norm`] of `sum = x + residual`, which it writes first.
pub fn add_layer_norm<T: Real>(
    operands: [&[T]; 2],
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    eps: T,
    sum: &mut [T],
    [y, mean, rstd]: [&mut [T]; 3],
    n: usize,
) {
    for_sums_stats(operands, sum, (y, mean, rstd), n, |sum, y, mean, rstd| {
        layer_norm_at(level(), sum, weight, bias, eps, y, mean, rstd, n);
    });
}

/// With `x̂ = (x − mean)·rstd`: `dx = rstd·(g·w − mean(g·w) − x̂·mean(g·w·x̂)) + others`, `dweight = Σ_rows g·x̂`,
/// `dbias = Σ_rows g`. `dweight` and `dbias` are overwritten, and summed in an order that depends on the shape alone.
pub fn layer_norm_backward<T: Real>(
    x: &[T],
    weight: Option<&[T]>,
    mean: &[T],
    rstd: &[T],
    g: &[T],
    others: Option<&[T]>,
    dx: &mut [T],
    dweight: Option<&mut [T]>,
    dbias: Option<&mut [T]>,
    n: usize,
) {
    let rows = mean.len();
    assert!(rstd.len() == rows && x.len() == rows * n && g.len() == x.len() && dx.len() == x.len());
    assert!(weight.is_none_or(|w| w.len() == n), "weight has one element per column");
    let level = level();
    partial_sums(dx, n, dweight, dbias, |row, dx, mut sums| {
        let part = row * n..row * n + dx.len();
        let stats = row..row + dx.len() / n;
        backward_kernel(
            level,
            &x[part.clone()],
            weight,
            &mean[stats.clone()],
            &rstd[stats],
            &g[part.clone()],
            dx,
            &mut sums,
            n,
        );
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
                // A mean far larger than the deviation: one-pass formulas fail here.
                let x: Vec<f32> = noise::<f32>(3 * n, 1).iter().map(|v| v + 300.0).collect();
                let (w, b) = (noise::<f32>(n, 2), noise::<f32>(n, 3));
                for (w, b) in [(None, None), (Some(&w), None), (None, Some(&b)), (Some(&w), Some(&b))] {
                    let (mut y, mut mean, mut rstd) = (vec![0.0; 3 * n], vec![0.0; 3], vec![0.0; 3]);
                    let (w, b) = (w.map(|w| &w[..]), b.map(|b| &b[..]));
                    layer_norm_at(level, &x, w, b, 1e-5, &mut y, &mut mean, &mut rstd, n);
                    for (i, row) in x.chunks(n.max(1)).enumerate() {
                        let m = row.iter().map(|&v| v as f64).sum::<f64>() / n as f64;
                        let v = row.iter().map(|&v| (v as f64 - m).powi(2)).sum::<f64>() / n as f64;
                        let r = 1.0 / (v + 1e-5).sqrt();
                        let at = |p: Option<&[f32]>, j: usize, none| p.map_or(none, |p| p[j] as f64);
                        let want: Vec<f64> =
                            (0..n).map(|j| (row[j] as f64 - m) * r * at(w, j, 1.0) + at(b, j, 0.0)).collect();
                        // The mean, near 300, is known to half an ulp of 3e-5; n = 1 magnifies that by 1/√eps.
                        close(&y[i * n..][..n], &want, 1e-4, if n == 1 { 1e-2 } else { 2e-4 });
                        close(&mean[i..=i], &[m], 1e-6, 0.0);
                    }
                }
            }
        }
    }

    #[test]
    fn backward_is_the_derivative() {
        let (rows, n) = (4, 13);
        let (x, g) = (noise::<f64>(rows * n, 2), noise::<f64>(rows * n, 3));
        let (w, b) = (noise::<f64>(n, 4), noise::<f64>(n, 5));
        let stats = |x: &[f64], w: &[f64], b: &[f64]| {
            let (mut y, mut mean, mut rstd) = (vec![0.0; x.len()], vec![0.0; rows], vec![0.0; rows]);
            layer_norm(x, Some(w), Some(b), 1e-5, &mut y, &mut mean, &mut rstd, n);
            (y.iter().zip(&g).map(|(y, g)| y * g).sum::<f64>(), mean, rstd)
        };
        let (_, mean, rstd) = stats(&x, &w, &b);
        let (mut dx, mut dw, mut db) = (vec![0.0; rows * n], vec![0.0; n], vec![0.0; n]);
        layer_norm_backward(&x, Some(&w), &mean, &rstd, &g, None, &mut dx, Some(&mut dw), Some(&mut db), n);
        check_gradient(&x, &dx, |x| stats(x, &w, &b).0);
        check_gradient(&w, &dw, |w| stats(&x, w, &b).0);
        check_gradient(&b, &db, |b| stats(&x, &w, b).0);
        let mut dx2 = vec![0.0; rows * n];
        layer_norm_backward(&x, Some(&w), &mean, &rstd, &g, None, &mut dx2, None, None, n);
        assert_eq!(dx, dx2);
    }

    #[test]
    fn threads_do_not_show() {
        let (rows, n) = (1500, 65);
        let (x, g) = (noise::<f32>(rows * n, 2), noise::<f32>(rows * n, 3));
        let run = || {
            let (mut mean, mut rstd) = (vec![0.0; rows], vec![0.0; rows]);
            let (mut dx, mut dw, mut db) = (vec![0.0; rows * n], vec![0.0; n], vec![0.0; n]);
            layer_norm(&x, None, None, 1e-5, &mut dx, &mut mean, &mut rstd, n);
            layer_norm_backward(&x, None, &mean, &rstd, &g, None, &mut dx, Some(&mut dw), Some(&mut db), n);
            (dx, dw, db)
        };
        assert_eq!(on_threads(1, run), on_threads(4, run));
    }

    #[test]
    fn nothing() {
        layer_norm::<f32>(&[], None, None, 1e-5, &mut [], &mut [], &mut [], 4);
        let (mut dw, mut db) = ([1.0f32; 4], [1.0f32; 4]);
        layer_norm_backward(&[], None, &[], &[], &[], None, &mut [], Some(&mut dw), Some(&mut db), 4);
        assert_eq!((dw, db), ([0.0; 4], [0.0; 4]));
        let (mut mean, mut rstd) = ([0.0f32; 2], [0.0; 2]);
        layer_norm(&[], None, None, 1e-5, &mut [], &mut mean, &mut rstd, 0);
        assert!(mean[0].is_nan() && rstd[1].is_nan());
    }
}
