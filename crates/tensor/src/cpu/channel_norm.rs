//! Normalisation by channel: the kernels of batch and group norm.
//!
//! `x = [B, C, S]` is seen as `B·C` planes of `S` contiguous elements. What differs between the two norms is which planes
//! share their statistics; the passes over the data are the same three: moments, an affine map of each plane, and, going
//! back, two sums over each plane followed by a linear combination of the gradient and the input.

use super::lanes::{self, Pairwise};
use super::level::level;
use super::math::Real;
use super::rows::{PARALLEL_FROM, for_rows, rows_per_task};
use super::simd::simd_fn;
use crate::cpu::parallel::*;

simd_fn! {
    fn moments_kernel[S]<T: Real>(x: &[T], batch: usize, channels: usize, size: usize, channel: usize) -> (T, T) {
        let count = T::from_usize(batch * size);
        let plane = |b: usize| &x[(b * channels + channel) * size..][..size];
        let mut total = Pairwise::new();
        for b in 0..batch {
            total.push(lanes::sum(plane(b)));
        }
        let mean = total.total() / count;
        let mut squares = Pairwise::new();
        for b in 0..batch {
            squares.push(lanes::sum_map(plane(b), |x| (x - mean) * (x - mean)));
        }
        (mean, squares.total() / count)
    }
}

simd_fn! {
    fn affine_kernel[S]<T: Real>(x: &[T], center: &[T], scale: &[T], shift: &[T], y: &mut [T], size: usize) {
        let coefficients = center.iter().zip(scale).zip(shift);
        for ((x, y), ((&m, &a), &b)) in x.chunks_exact(size).zip(y.chunks_exact_mut(size)).zip(coefficients) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = S::mul_add(x - m, a, b);
            }
        }
    }
}

simd_fn! {
    fn sums_kernel[S]<T: Real>(x: &[T], g: &[T], center: T, scale: T) -> (T, T) {
        (lanes::sum(g), lanes::sum_map2(g, x, |g, x| g * ((x - center) * scale)))
    }
}

simd_fn! {
    fn combine_kernel[S]<T: Real>(x: &[T], g: &[T], center: &[T], c: &[[T; 3]], dx: &mut [T], size: usize) {
        let planes = x.chunks_exact(size).zip(g.chunks_exact(size)).zip(dx.chunks_exact_mut(size));
        for (((x, g), dx), (&m, &[a, b, c])) in planes.zip(center.iter().zip(c)) {
            for ((dx, &x), &g) in dx.iter_mut().zip(x).zip(g) {
                *dx = S::mul_add(a, g, S::mul_add(b, x - m, c));
            }
        }
    }
}

/// Mean and variance (over n) of each channel of `x = [batch, C, size]`, in two passes; `C = mean.len()`. NaN where there
/// is no element.
pub fn channel_moments<T: Real>(x: &[T], batch: usize, size: usize, mean: &mut [T], variance: &mut [T]) {
    let (level, channels) = (level(), mean.len());
    assert!(x.len() == batch * channels * size && variance.len() == channels);
    let work = |(k, (m, v)): (usize, (&mut T, &mut T))| {
        (*m, *v) = moments_kernel(level, x, batch, channels, size, k);
    };
    if x.len() < PARALLEL_FROM {
        mean.iter_mut().zip(variance).enumerate().for_each(work);
    } else {
        let least = rows_per_task(batch * size);
        mean.par_iter_mut().zip(variance.par_iter_mut()).enumerate().with_min_len(least).for_each(work);
    }
}

/// `y = (x − center)·scale + shift` with one coefficient of each kind per plane of `size` elements.
pub fn affine_planes<T: Real>(x: &[T], center: &[T], scale: &[T], shift: &[T], y: &mut [T], size: usize) {
    let planes = center.len();
    assert!(x.len() == planes * size && y.len() == x.len() && scale.len() == planes && shift.len() == planes);
    let level = level();
    for_rows(y, size, |p, y| {
        let part = p..p + y.len() / size;
        let x = &x[p * size..][..y.len()];
        affine_kernel(level, x, &center[part.clone()], &scale[part.clone()], &shift[part], y, size);
    });
}

/// `(Σ g, Σ g·x̂)` of each plane of `size` elements, `x̂ = (x − center)·scale`.
pub fn plane_sums<T: Real>(x: &[T], g: &[T], center: &[T], scale: &[T], size: usize) -> Vec<(T, T)> {
    let planes = center.len();
    assert!(x.len() == planes * size && g.len() == x.len() && scale.len() == planes);
    let level = level();
    let work = |p: usize| {
        let part = p * size..(p + 1) * size;
        sums_kernel(level, &x[part.clone()], &g[part], center[p], scale[p])
    };
    if x.len() < PARALLEL_FROM {
        (0..planes).map(work).collect()
    } else {
        (0..planes).into_par_iter().with_min_len(rows_per_task(size)).map_to_vec(work)
    }
}

/// `dx = a·g + b·(x − center) + c` with one `[a, b, c]` per plane of `size` elements.
pub fn combine_planes<T: Real>(x: &[T], g: &[T], center: &[T], coefficients: &[[T; 3]], dx: &mut [T], size: usize) {
    let planes = center.len();
    assert!(x.len() == planes * size && g.len() == x.len() && dx.len() == x.len() && coefficients.len() == planes);
    let level = level();
    for_rows(dx, size, |p, dx| {
        let (part, elements) = (p..p + dx.len() / size, p * size..p * size + dx.len());
        let (x, g) = (&x[elements.clone()], &g[elements]);
        combine_kernel(level, x, g, &center[part.clone()], &coefficients[part], dx, size);
    });
}

/// The backward pass of a norm whose statistics were computed from `x` itself. Plane `p` belongs to channel `p % C`, whose
/// weight is `weight(c)`, and to the set `set(p)` of planes that share the statistics `mean[p]`, `rstd[p]`, `n` elements in
/// all. With `x̂ = (x − mean)·rstd`, the means over the set:
///
/// `dx = rstd·(g·w − mean(g·w) − x̂·mean(g·w·x̂))`
///
/// and `dweight[c] = Σ g·x̂`, `dbias[c] = Σ g` over the channel's planes. With `fixed` statistics (evaluation) the two means
/// are absent.
pub struct Backward<'a, T> {
    /// `[P · size]`
    pub x: &'a [T],
    /// `[P · size]`
    pub g: &'a [T],
    /// Per plane.
    pub mean: &'a [T],
    /// Per plane.
    pub rstd: &'a [T],
    /// Per channel; ones if absent.
    pub weight: Option<&'a [T]>,
    /// Elements per plane.
    pub size: usize,
    /// The number of sets and the set that each plane belongs to; `None` for fixed statistics.
    pub sets: Option<(usize, &'a (dyn Fn(usize) -> usize + Sync))>,
}

impl<T: Real> Backward<'_, T> {
    /// Writes `dx`, `dweight` and `dbias`; the last two have one element per channel and are overwritten.
    pub fn run(&self, dx: &mut [T], dweight: &mut [T], dbias: &mut [T]) {
        let channels = dweight.len();
        let w = |p: usize| self.weight.map_or(T::ONE, |w| w[p % channels]);
        let sums = plane_sums(self.x, self.g, self.mean, self.rstd, self.size);
        let mut totals: Vec<[Pairwise<T>; 2]> = (0..channels).map(|_| Default::default()).collect();
        for (p, &(g, gx)) in sums.iter().enumerate() {
            totals[p % channels][0].push(gx);
            totals[p % channels][1].push(g);
        }
        for ((dw, db), [gx, g]) in dweight.iter_mut().zip(dbias).zip(&totals) {
            (*dw, *db) = (gx.total(), g.total());
        }
        let coefficients: Vec<[T; 3]> = match self.sets {
            None => self.rstd.iter().enumerate().map(|(p, &r)| [r * w(p), T::ZERO, T::ZERO]).collect(),
            Some((count, set)) => {
                let mut means: Vec<[Pairwise<T>; 2]> = (0..count).map(|_| Default::default()).collect();
                for (p, &(g, gx)) in sums.iter().enumerate() {
                    means[set(p)][0].push(w(p) * g);
                    means[set(p)][1].push(w(p) * gx);
                }
                let n = T::from_usize(self.x.len() / count.max(1));
                let means: Vec<[T; 2]> = means.iter().map(|[a, b]| [a.total() / n, b.total() / n]).collect();
                let plane = |(p, &r): (usize, &T)| {
                    let [a, b] = means[set(p)];
                    [r * w(p), -(r * r * b), -(r * a)]
                };
                self.rstd.iter().enumerate().map(plane).collect()
            }
        };
        combine_planes(self.x, self.g, self.mean, &coefficients, dx, self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{check_gradient, close, noise, on_threads};

    const SHAPES: [[usize; 3]; 4] = [[2, 3, 5], [1, 2, 70], [4, 1, 1], [3, 4, 33]];

    fn forward(x: &[f64], [b, c, s]: [usize; 3], w: &[f64]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let (mut mean, mut var) = (vec![0.0; c], vec![0.0; c]);
        channel_moments(x, b, s, &mut mean, &mut var);
        let planes = |f: &dyn Fn(usize) -> f64| (0..b * c).map(|p| f(p % c)).collect::<Vec<_>>();
        let (mean, rstd) = (planes(&|k| mean[k]), planes(&|k| 1.0 / (var[k] + 1e-5).sqrt()));
        let scale: Vec<f64> = (0..b * c).map(|p| rstd[p] * w[p % c]).collect();
        let mut y = vec![0.0; x.len()];
        affine_planes(x, &mean, &scale, &vec![0.25; b * c], &mut y, s);
        (y, mean, rstd)
    }

    #[test]
    fn moments_of_a_distant_mean() {
        for [b, c, s] in SHAPES {
            let x: Vec<f32> = noise::<f32>(b * c * s, 1).iter().map(|v| v + 300.0).collect();
            let (mut mean, mut var) = (vec![0.0; c], vec![0.0; c]);
            channel_moments(&x, b, s, &mut mean, &mut var);
            for k in 0..c {
                let of: Vec<f64> = (0..b)
                    .flat_map(|i| x[(i * c + k) * s..][..s].iter().map(|&v| v as f64).collect::<Vec<_>>())
                    .collect();
                let m = of.iter().sum::<f64>() / of.len() as f64;
                let v = of.iter().map(|v| (v - m).powi(2)).sum::<f64>() / of.len() as f64;
                close(&[mean[k]], &[m], 1e-6, 0.0);
                close(&[var[k]], &[v], 1e-4, 1e-8);
            }
        }
    }

    #[test]
    fn backward_is_the_derivative() {
        for shape @ [b, c, s] in SHAPES {
            let (x, g, w) = (noise::<f64>(b * c * s, 2), noise::<f64>(b * c * s, 3), noise::<f64>(c, 4));
            let (_, mean, rstd) = forward(&x, shape, &w);
            let set = |p: usize| p % c;
            let backward =
                Backward { x: &x, g: &g, mean: &mean, rstd: &rstd, weight: Some(&w), size: s, sets: Some((c, &set)) };
            let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; c], vec![0.0; c]);
            backward.run(&mut dx, &mut dw, &mut db);
            let loss = |x: &[f64], w: &[f64]| forward(x, shape, w).0.iter().zip(&g).map(|(y, g)| y * g).sum::<f64>();
            check_gradient(&x, &dx, |x| loss(x, &w));
            check_gradient(&w, &dw, |w| loss(&x, w));
            let fixed = Backward { sets: None, ..backward };
            fixed.run(&mut dx, &mut dw, &mut db);
            let want: Vec<f64> = (0..x.len()).map(|i| g[i] * rstd[i / s] * w[i / s % c]).collect();
            close(&dx, &want, 1e-14, 0.0);
        }
    }

    #[test]
    fn threads_do_not_show() {
        let (b, c, s) = (6, 8, 1000);
        let (x, g) = (noise::<f32>(b * c * s, 1), noise::<f32>(b * c * s, 2));
        let run = || {
            let (mut mean, mut var) = (vec![0.0; c], vec![0.0; c]);
            channel_moments(&x, b, s, &mut mean, &mut var);
            let planes: Vec<f32> = (0..b * c).map(|p| mean[p % c]).collect();
            let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; c], vec![0.0; c]);
            let set = |p: usize| p % c;
            let ones = vec![1.0; b * c];
            let sets: Option<(usize, &(dyn Fn(usize) -> usize + Sync))> = Some((c, &set));
            Backward { x: &x, g: &g, mean: &planes, rstd: &ones, weight: None, size: s, sets }
                .run(&mut dx, &mut dw, &mut db);
            (mean, var, dx, dw, db)
        };
        assert_eq!(on_threads(1, run), on_threads(3, run));
    }
}
