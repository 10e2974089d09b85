//! Reductions of a slice, of its rows and of its columns. Each is carried out in an order that depends on the sizes alone.

use super::lanes::{self, Pairwise};
use super::level::{Level, level};
use super::math::Real;
use super::rows::{PARALLEL_FROM, for_rows, rows_per_partial};
use super::simd::simd_fn;
use rayon::prelude::*;

/// An associative operation that reduces many numbers to one, as a type.
pub trait Reduction: 'static {
    /// What no number at all reduces to.
    fn identity<T: Real>() -> T;
    /// Of two numbers, or of two partial results.
    fn combine<T: Real>(a: T, b: T) -> T;
    /// Of a slice.
    #[inline(always)]
    fn slice<T: Real>(x: &[T]) -> T {
        lanes::fold_block(x, Self::identity(), Self::combine)
    }
}

macro_rules! reductions {
    ($($(#[$meta:meta])* $name:ident: $identity:ident, |$a:ident, $b:ident| $combine:expr $(, $slice:path)?;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl Reduction for $name {
            #[inline(always)]
            fn identity<T: Real>() -> T {
                T::$identity
            }
            #[inline(always)]
            fn combine<T: Real>($a: T, $b: T) -> T {
                $combine
            }
            $(#[inline(always)]
            fn slice<T: Real>(x: &[T]) -> T {
                $slice(x)
            })?
        }
    )*};
}

reductions! {
    /// Σ x, blocked and pairwise.
    Sum: ZERO, |a, b| a + b, lanes::sum;
    /// Π x.
    Prod: ONE, |a, b| a * b;
    /// The largest; −∞ of nothing, NaN if there is one.
    Max: NEG_INFINITY, |a, b| a.maximum(b);
    /// The smallest; +∞ of nothing, NaN if there is one.
    Min: INFINITY, |a, b| a.minimum(b);
}

/// Elements per partial result of a whole slice.
const PIECE: usize = 1 << 16;

simd_fn! {
    fn slice_kernel[S]<T: Real, R: Reduction>(x: &[T]) -> T {
        R::slice(x)
    }
}

simd_fn! {
    fn rows_kernel[S]<T: Real, R: Reduction>(x: &[T], out: &mut [T], n: usize) {
        for (o, x) in out.iter_mut().zip(x.chunks_exact(n)) {
            *o = R::slice(x);
        }
    }
}

simd_fn! {
    fn columns_kernel[S]<T: Real, R: Reduction>(x: &[T], out: &mut [T], n: usize) {
        for x in x.chunks_exact(n) {
            for (o, &x) in out.iter_mut().zip(x) {
                *o = R::combine(*o, x);
            }
        }
    }
}

simd_fn! {
    fn dot_kernel[S]<T: Real>(x: &[T], y: &[T]) -> T {
        let mut total = Pairwise::new();
        for (x, y) in x.chunks(lanes::BLOCK).zip(y.chunks(lanes::BLOCK)) {
            let mut acc = [T::ZERO; lanes::LANES];
            let (mut xs, mut ys) = (x.chunks_exact(lanes::LANES), y.chunks_exact(lanes::LANES));
            for (x, y) in (&mut xs).zip(&mut ys) {
                for i in 0..lanes::LANES {
                    acc[i] = S::mul_add(x[i], y[i], acc[i]);
                }
            }
            for ((a, &x), &y) in acc.iter_mut().zip(xs.remainder()).zip(ys.remainder()) {
                *a = S::mul_add(x, y, *a);
            }
            total.push(lanes::fold(acc, |a, b| a + b));
        }
        total.total()
    }
}

simd_fn! {
    fn mean_var_kernel[S]<T: Real>(x: &[T], correction: T, mean: &mut [T], var: &mut [T], n: usize) {
        for ((x, mean), var) in x.chunks_exact(n).zip(mean).zip(var) {
            let m = lanes::sum(x) / T::from_usize(n);
            *mean = m;
            *var = lanes::sum_map(x, |x| (x - m) * (x - m)) / degrees(T::from_usize(n), correction);
        }
    }
}

simd_fn! {
    fn squares_kernel[S]<T: Real>(x: &[T], mean: T) -> T {
        lanes::sum_map(x, |x| (x - mean) * (x - mean))
    }
}

/// n − correction, at least 0 (as PyTorch: the variance of too few is 0/0 or x/0).
#[inline(always)]
fn degrees<T: Real>(n: T, correction: T) -> T {
    if n > correction { n - correction } else { T::ZERO }
}

/// Neighbours combined level by level: the order does not depend on who computed them.
fn tree<T: Copy>(mut parts: Vec<T>, empty: T, f: impl Fn(T, T) -> T) -> T {
    while parts.len() > 1 {
        parts = parts.chunks(2).map(|p| if p.len() == 2 { f(p[0], p[1]) } else { p[0] }).collect();
    }
    parts.first().copied().unwrap_or(empty)
}

/// `f` over pieces of fixed size, in parallel if there are several, then [`tree`].
fn pieces<T: Real>(len: usize, empty: T, f: impl Fn(std::ops::Range<usize>) -> T + Sync, g: impl Fn(T, T) -> T) -> T {
    let count = len.div_ceil(PIECE);
    let range = |i: usize| i * PIECE..((i + 1) * PIECE).min(len);
    let parts = if count < 2 {
        (0..count).map(|i| f(range(i))).collect()
    } else {
        (0..count).into_par_iter().map(|i| f(range(i))).collect()
    };
    tree(parts, empty, g)
}

/// A whole slice reduced to one number.
pub fn reduce<R: Reduction, T: Real>(x: &[T]) -> T {
    reduce_at::<R, T>(level(), x)
}

fn reduce_at<R: Reduction, T: Real>(level: Level, x: &[T]) -> T {
    pieces(x.len(), R::identity(), |r| slice_kernel::<T, R>(level, &x[r]), R::combine)
}

/// `Σ x·y` of two slices of one length.
pub fn dot<T: Real>(x: &[T], y: &[T]) -> T {
    assert_eq!(x.len(), y.len());
    let level = level();
    pieces(x.len(), T::ZERO, |r| dot_kernel(level, &x[r.clone()], &y[r]), |a, b| a + b)
}

/// Mean and variance `Σ(x − mean)² / (n − correction)` of a whole slice, in two passes; NaN of nothing.
pub fn mean_var<T: Real>(x: &[T], correction: T) -> (T, T) {
    let (level, n) = (level(), T::from_usize(x.len()));
    let mean = reduce::<Sum, T>(x) / n;
    let squares = pieces(x.len(), T::ZERO, |r| squares_kernel(level, &x[r], mean), |a, b| a + b);
    (mean, squares / degrees(n, correction))
}

/// Each row of `[rows, n]` reduced to one number; `out.len()` is the number of rows.
pub fn reduce_rows<R: Reduction, T: Real>(x: &[T], out: &mut [T], n: usize) {
    reduce_rows_at::<R, T>(level(), x, out, n);
}

fn reduce_rows_at<R: Reduction, T: Real>(level: Level, x: &[T], out: &mut [T], n: usize) {
    assert_eq!(x.len(), out.len() * n);
    if n == 0 {
        out.fill(R::identity());
    } else if x.len() < PARALLEL_FROM {
        rows_kernel::<T, R>(level, x, out, n);
    } else {
        let rows = super::rows::rows_per_task(n);
        out.par_chunks_mut(rows).zip(x.par_chunks(rows * n)).for_each(|(out, x)| rows_kernel::<T, R>(level, x, out, n));
    }
}

/// Mean and variance `Σ(x − mean)² / (n − correction)` of each row of `[rows, n]`, in two passes; NaN if n = 0.
pub fn mean_var_rows<T: Real>(x: &[T], correction: T, mean: &mut [T], var: &mut [T], n: usize) {
    assert!(x.len() == mean.len() * n && var.len() == mean.len());
    if n == 0 {
        mean.fill(T::NAN);
        return var.fill(T::NAN);
    }
    let (level, rows) = (level(), super::rows::rows_per_task(n));
    if x.len() < PARALLEL_FROM {
        return mean_var_kernel(level, x, correction, mean, var, n);
    }
    mean.par_chunks_mut(rows)
        .zip(var.par_chunks_mut(rows))
        .zip(x.par_chunks(rows * n))
        .for_each(|((mean, var), x)| mean_var_kernel(level, x, correction, mean, var, n));
}

/// The leading dimension of `[rows, n]` reduced: `out[j] = R over i of x[i, j]`. Rows are reduced in blocks of fixed size,
/// and the blocks in a tree.
pub fn reduce_columns<R: Reduction, T: Real>(x: &[T], out: &mut [T], n: usize) {
    reduce_columns_at::<R, T>(level(), x, out, n);
}

fn reduce_columns_at<R: Reduction, T: Real>(level: Level, x: &[T], out: &mut [T], n: usize) {
    assert_eq!(out.len(), n);
    out.fill(R::identity());
    if x.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(n));
    let block = rows_per_partial(n) * n;
    if x.len() <= block {
        return columns_kernel::<T, R>(level, x, out, n);
    }
    let mut parts = vec![R::identity(); x.len().div_ceil(block) * n];
    parts.par_chunks_mut(n).zip(x.par_chunks(block)).for_each(|(part, x)| columns_kernel::<T, R>(level, x, part, n));
    column_tree(&mut parts, n, R::combine);
    out.copy_from_slice(&parts[..n]);
}

/// Rows of `parts = [count, n]` combined in a tree, into the first.
fn column_tree<T: Copy>(parts: &mut [T], n: usize, f: impl Fn(T, T) -> T) {
    let count = parts.len() / n;
    let mut step = 1;
    while step < count {
        for i in (0..count - step).step_by(2 * step) {
            let (left, right) = parts.split_at_mut((i + step) * n);
            for (a, &b) in left[i * n..][..n].iter_mut().zip(&right[..n]) {
                *a = f(*a, b);
            }
        }
        step *= 2;
    }
}

/// The sums over rows that a normalisation's backward pass gathers for its parameters; a sum that nobody wants is empty.
pub struct Partials<'a, T> {
    /// `[n]`, or empty.
    pub first: &'a mut [T],
    /// `[n]`, or empty.
    pub second: &'a mut [T],
}

/// Runs `f(first_row, rows of y, sums)` over blocks of rows of `y = [rows, n]`, each block with sums of its own that start
/// at 0, and adds those up in a tree into `first` and `second`.
pub fn partial_sums<T: Real>(
    y: &mut [T],
    n: usize,
    first: Option<&mut [T]>,
    second: Option<&mut [T]>,
    f: impl Fn(usize, &mut [T], Partials<'_, T>) + Sync + Send,
) {
    let widths = [first.is_some() as usize * n, second.is_some() as usize * n];
    if let (0, 0) = (widths[0], widths[1]) {
        return for_rows(y, n, |row, y| f(row, y, Partials { first: &mut [], second: &mut [] }));
    }
    let width = widths[0] + widths[1];
    let rows = rows_per_partial(n);
    let blocks = y.len().div_ceil(rows * n).max(1);
    let mut parts = vec![T::ZERO; blocks * width];
    let work = |(i, (y, part)): (usize, (&mut [T], &mut [T]))| {
        let (first, second) = part.split_at_mut(widths[0]);
        f(i * rows, y, Partials { first, second });
    };
    if y.len() < PARALLEL_FROM {
        y.chunks_mut(rows * n).zip(parts.chunks_mut(width)).enumerate().for_each(work);
    } else {
        y.par_chunks_mut(rows * n).zip(parts.par_chunks_mut(width)).enumerate().for_each(work);
    }
    column_tree(&mut parts, width, |a, b| a + b);
    if let Some(first) = first {
        first.copy_from_slice(&parts[..n]);
    }
    if let Some(second) = second {
        second.copy_from_slice(&parts[widths[0]..][..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{LENGTHS, close, noise, on_threads};

    #[test]
    fn every_length_and_level() {
        for level in Level::ALL {
            for n in LENGTHS {
                let x: Vec<f32> = noise::<f32>(5 * n, 7);
                let wide: Vec<f64> = x.iter().map(|&v| v as f64).collect();
                let exact = [
                    wide.iter().sum::<f64>(),
                    wide.iter().product(),
                    wide.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b)),
                    wide.iter().fold(f64::INFINITY, |a, &b| a.min(b)),
                ];
                let got = [
                    reduce_at::<Sum, f32>(level, &x),
                    reduce_at::<Prod, f32>(level, &x),
                    reduce_at::<Max, f32>(level, &x),
                    reduce_at::<Min, f32>(level, &x),
                ];
                close(&got, &exact, 1e-5, 1e-4);
                let mut out = [0.0; 5];
                reduce_rows_at::<Sum, f32>(level, &x, &mut out, n);
                let want: Vec<f64> = (0..5).map(|i| wide[i * n..][..n].iter().sum()).collect();
                close(&out, &want, 1e-5, 1e-5);
                let mut columns = vec![0.0; n];
                reduce_columns_at::<Sum, f32>(level, &x, &mut columns, n);
                let want: Vec<f64> = (0..n).map(|j| (0..5).map(|i| wide[i * n + j]).sum()).collect();
                close(&columns, &want, 1e-6, 1e-6);
            }
        }
    }

    #[test]
    fn variance_of_a_distant_mean() {
        let x: Vec<f32> = noise::<f32>(200_000, 3).iter().map(|v| v + 1000.0).collect();
        let exact_mean = x.iter().map(|&v| v as f64).sum::<f64>() / x.len() as f64;
        let exact = x.iter().map(|&v| (v as f64 - exact_mean).powi(2)).sum::<f64>() / (x.len() - 1) as f64;
        let (mean, var) = mean_var(&x, 1.0);
        close(&[mean, var], &[exact_mean, exact], 1e-6, 0.0);
        let (mut m, mut v) = ([0.0; 2], [0.0; 2]);
        mean_var_rows(&x, 1.0, &mut m, &mut v, 100_000);
        close(&v, &[exact, exact], 2e-2, 0.0);
        assert!(mean_var::<f32>(&[], 0.0).0.is_nan());
        assert!(mean_var(&[1.0f32], 1.0).1.is_nan());
    }

    #[test]
    fn dot_and_threads() {
        let (x, y) = (noise::<f32>(300_001, 1), noise::<f32>(300_001, 2));
        let exact: f64 = x.iter().zip(&y).map(|(&a, &b)| a as f64 * b as f64).sum();
        close(&[dot(&x, &y)], &[exact], 1e-5, 1e-3);
        let run = || {
            let mut c = vec![0.0; 7];
            reduce_columns::<Sum, f32>(&x[..300_000 / 7 * 7], &mut c, 7);
            (dot(&x, &y), reduce::<Sum, f32>(&x), reduce::<Max, f32>(&y), mean_var(&x, 1.0), c)
        };
        assert_eq!(on_threads(1, run), on_threads(4, run));
    }
}
