//! Reductions of a slice, of its rows and of its columns, and from these of a tensor over any dimensions. Each is carried
//! out in an order that depends on the sizes alone, never on the number of threads.

use super::elementwise::cast;
use super::lanes;
use super::level::{Level, level};
use super::math::Real;
use super::rows::{PARALLEL_FROM, TASK, for_rows, rows_per_partial};
use super::simd::simd_fn;
use crate::backend::{Backend, Reduce};
use crate::cpu::parallel::*;
use crate::shape::Dims;
use crate::storage::CpuBuffer;
use crate::{DType, Shape, Tensor};
use bytemuck::Pod;
use std::cmp::Reverse;

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
    Max: NEG_INFINITY, |a, b| a.maximum(b), lanes::max;
    /// The smallest; +∞ of nothing, NaN if there is one.
    Min: INFINITY, |a, b| a.minimum(b), lanes::min;
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
        (0..count).into_par_iter().map_to_vec(|i| f(range(i)))
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

/// Reduces the dimensions `dims` of a tensor to extent 1.
///
/// Where the elements fill their memory, in whatever order of dimensions, nothing is copied: dimensions of one kind that
/// lie together count as one, and the reduced ones go from the innermost outwards, each as a reduction of rows or of
/// columns. `[B, C, H, W]` over `B, H, W` is rows of `H·W`, then columns of `B`.
pub fn reduce_tensor(op: Reduce, x: &Tensor, dims: &[usize]) -> Tensor {
    match x.dtype() {
        d if matches!(op, Reduce::Any | Reduce::All) && d != DType::Bool => {
            return reduce_tensor(op, &cast(x, DType::Bool), dims);
        }
        d if d.is_half() => return cast(&reduce_tensor(op, &cast(x, DType::F32), dims), d),
        _ => {}
    }
    let kept = |d: usize, n: usize| if dims.contains(&d) { 1 } else { n };
    let shape: Shape = x.dims().iter().enumerate().map(|(d, &n)| kept(d, n)).collect();
    let dtype = if matches!(op, Reduce::Sum | Reduce::Prod) { x.dtype().accumulator() } else { x.dtype() };
    if x.numel() == 0 {
        let identity = if matches!(op, Reduce::Prod | Reduce::All) { 1.0 } else { 0.0 };
        return super::CpuBackend.full(&shape, dtype, identity);
    }
    if x.shape() == &shape {
        return if x.dtype() == dtype { x.clone() } else { cast(x, dtype) };
    }

    // The dimensions in the order of memory, each forwards.
    let reversed: Dims = (0..x.rank()).filter(|&d| x.layout().strides[d] < 0 && x.dims()[d] > 1).collect();
    let forwards = x.flip(&reversed[..]);
    let mut order: Dims = (0..x.rank()).collect();
    order.sort_by_key(|&d| Reverse(forwards.layout().strides[d]));
    let in_memory = forwards.permute_dims(&order);
    let filled = in_memory.is_contiguous();
    let (x, order) = if filled { (in_memory, order) } else { (x.contiguous(), (0..x.rank()).collect()) };

    let groups = groups(x.dims(), |d| dims.contains(&order[d]));
    let buffer = match (x.dtype(), op) {
        (DType::F32, _) => real::<f32>(op, &x, groups),
        (DType::F64, _) => real::<f64>(op, &x, groups),
        (d, Reduce::Sum) => {
            let (zero, add) = (0i64, |a: i64, b: i64| a.wrapping_add(b));
            match d {
                DType::I64 => whole(&x, groups, zero, |x: i64| x, add),
                DType::I32 => whole(&x, groups, zero, |x: i32| x as i64, add),
                DType::I8 => whole(&x, groups, zero, |x: i8| x as i64, add),
                _ => whole(&x, groups, zero, |x: u8| x as i64, add),
            }
        }
        (d, Reduce::Prod) => {
            let (one, mul) = (1i64, |a: i64, b: i64| a.wrapping_mul(b));
            match d {
                DType::I64 => whole(&x, groups, one, |x: i64| x, mul),
                DType::I32 => whole(&x, groups, one, |x: i32| x as i64, mul),
                DType::I8 => whole(&x, groups, one, |x: i8| x as i64, mul),
                _ => whole(&x, groups, one, |x: u8| x as i64, mul),
            }
        }
        // Truth is 1: `any` is the maximum and `all` the minimum.
        (d, Reduce::Max | Reduce::Any) => match d {
            DType::I64 => whole(&x, groups, i64::MIN, |x: i64| x, i64::max),
            DType::I32 => whole(&x, groups, i32::MIN, |x: i32| x, i32::max),
            DType::I8 => whole(&x, groups, i8::MIN, |x: i8| x, i8::max),
            _ => whole(&x, groups, u8::MIN, |x: u8| x, u8::max),
        },
        (d, Reduce::Min | Reduce::All) => match d {
            DType::I64 => whole(&x, groups, i64::MAX, |x: i64| x, i64::min),
            DType::I32 => whole(&x, groups, i32::MAX, |x: i32| x, i32::min),
            DType::I8 => whole(&x, groups, i8::MAX, |x: i8| x, i8::min),
            _ => whole(&x, groups, u8::MAX, |x: u8| x, u8::min),
        },
    };
    if !filled {
        return Tensor::from_cpu(buffer, shape, dtype);
    }
    // Back from the order of memory.
    let in_memory: Shape = order.iter().map(|&d| shape[d]).collect();
    let mut inverse: Dims = order.iter().map(|_| 0).collect();
    order.iter().enumerate().for_each(|(i, &d)| inverse[d] = i);
    let out = Tensor::from_cpu(buffer, in_memory, dtype).permute_dims(&inverse);
    out.flip(&reversed[..]).contiguous()
}

/// Extents of runs of dimensions that are all reduced or all kept.
fn groups(dims: &[usize], reduced: impl Fn(usize) -> bool) -> Vec<(usize, bool)> {
    let mut groups: Vec<(usize, bool)> = Vec::new();
    for (d, &n) in dims.iter().enumerate().filter(|&(_, &n)| n != 1) {
        match groups.last_mut() {
            Some((extent, kind)) if *kind == reduced(d) => *extent *= n,
            _ => groups.push((n, reduced(d))),
        }
    }
    groups
}

/// Takes the reduced groups away from the innermost outwards, each as a reduction of the middle of
/// `(outer, n, inner)`.
fn in_stages<T: Pod, A: Pod>(
    x: &[T],
    mut groups: Vec<(usize, bool)>,
    first: impl Fn(&[T], &mut [A], [usize; 3]),
    next: impl Fn(&[A], &mut [A], [usize; 3]),
) -> CpuBuffer {
    let mut done: Option<CpuBuffer> = None;
    while let Some(g) = groups.iter().rposition(|&(_, reduced)| reduced) {
        let extent = |groups: &[(usize, bool)]| groups.iter().map(|&(n, _)| n).product();
        let sizes = [extent(&groups[..g]), groups[g].0, extent(&groups[g + 1..])];
        let mut out = CpuBuffer::scratch::<A>(sizes[0] * sizes[2]);
        match &done {
            None => first(x, out.as_mut_slice(), sizes),
            Some(x) => next(x.as_slice(), out.as_mut_slice(), sizes),
        }
        done = Some(out);
        groups.remove(g);
    }
    done.expect("something is reduced")
}

fn real<T: Real + Pod>(op: Reduce, x: &Tensor, groups: Vec<(usize, bool)>) -> CpuBuffer {
    let x = x.contiguous_slice::<T>();
    match op {
        Reduce::Sum => in_stages(x, groups, reduce_middle::<Sum, T>, reduce_middle::<Sum, T>),
        Reduce::Prod => in_stages(x, groups, reduce_middle::<Prod, T>, reduce_middle::<Prod, T>),
        Reduce::Max => in_stages(x, groups, reduce_middle::<Max, T>, reduce_middle::<Max, T>),
        Reduce::Min => in_stages(x, groups, reduce_middle::<Min, T>, reduce_middle::<Min, T>),
        Reduce::Any | Reduce::All => unreachable!("cast to bool before"),
    }
}

/// Columns per piece of a wide matrix: the running results stay in the first-level cache.
const COLUMNS: usize = 2048;

/// The middle dimension of `[outer, n, inner]` reduced.
fn reduce_middle<R: Reduction, T: Real>(x: &[T], out: &mut [T], [outer, n, inner]: [usize; 3]) {
    if inner == 1 {
        if n < 4 * PIECE {
            return reduce_rows::<R, T>(x, out, n);
        }
        return out.iter_mut().zip(x.chunks_exact(n)).for_each(|(out, x)| *out = reduce::<R, T>(x));
    }
    if outer == 1 {
        if n > rows_per_partial(inner) || inner < 2 * COLUMNS || x.len() < PARALLEL_FROM {
            return reduce_columns::<R, T>(x, out, inner);
        }
        let level = level();
        return out.par_chunks_mut(COLUMNS).enumerate().for_each(|(i, out)| {
            out.fill(R::identity());
            for row in x.chunks_exact(inner) {
                columns_kernel::<T, R>(level, &row[i * COLUMNS..][..out.len()], out, out.len());
            }
        });
    }
    let slices = out.par_chunks_mut(inner).zip(x.par_chunks(n * inner)).with_min_len((TASK / (n * inner)).max(1));
    slices.for_each(|(out, x)| reduce_columns::<R, T>(x, out, inner));
}

/// A reduction of whole numbers, in which any order gives the same result.
fn whole<T: Pod + Sync, A: Pod + Send + Sync>(
    x: &Tensor,
    groups: Vec<(usize, bool)>,
    identity: A,
    widen: impl Fn(T) -> A + Sync,
    combine: impl Fn(A, A) -> A + Sync,
) -> CpuBuffer {
    let first = |x: &[T], out: &mut [A], sizes| whole_middle(x, out, sizes, identity, &widen, &combine);
    let next = |x: &[A], out: &mut [A], sizes| whole_middle(x, out, sizes, identity, &|a| a, &combine);
    in_stages(x.contiguous_slice::<T>(), groups, first, next)
}

fn whole_middle<T: Pod + Sync, A: Pod + Send + Sync>(
    x: &[T],
    out: &mut [A],
    [outer, n, inner]: [usize; 3],
    identity: A,
    widen: &(impl Fn(T) -> A + Sync),
    combine: &(impl Fn(A, A) -> A + Sync),
) {
    let fold = |x: &[T]| x.iter().fold(identity, |a, &x| combine(a, widen(x)));
    match (outer, inner) {
        (1, 1) => out[0] = x.par_chunks(PIECE).map_to_vec(fold).into_iter().fold(identity, combine),
        (_, 1) => {
            let rows = out.par_iter_mut().zip(x.par_chunks(n)).with_min_len((TASK / n).max(1));
            rows.for_each(|(out, x)| *out = fold(x));
        }
        _ => {
            let slices = out.par_chunks_mut(inner).zip(x.par_chunks(n * inner));
            slices.with_min_len((TASK / (n * inner)).max(1)).for_each(|(out, x)| {
                out.fill(identity);
                for row in x.chunks_exact(inner) {
                    out.iter_mut().zip(row).for_each(|(a, &x)| *a = combine(*a, widen(x)));
                }
            });
        }
    }
}

/// Mean and variance over the last dimensions, from `first` on, of a row-major float tensor, in one kernel; `None` for
/// any other.
pub fn mean_var_tensor(x: &Tensor, dims: &[usize], correction: f64) -> Option<(Tensor, Tensor)> {
    let first = x.rank() - dims.len();
    if !x.is_contiguous() || x.numel() == 0 || !dims.iter().copied().eq(first..x.rank()) {
        return None;
    }
    fn run<T: Real + Pod>(x: &Tensor, shape: &Shape, correction: f64) -> (Tensor, Tensor) {
        let (rows, correction) = (shape.numel(), T::from_f64(correction));
        let (mut mean, mut var) = (CpuBuffer::scratch::<T>(rows), CpuBuffer::scratch::<T>(rows));
        let (data, n) = (x.contiguous_slice::<T>(), x.numel() / rows);
        if n < 4 * PIECE {
            mean_var_rows(data, correction, mean.as_mut_slice(), var.as_mut_slice(), n);
        } else {
            let stats = mean.as_mut_slice::<T>().iter_mut().zip(var.as_mut_slice::<T>());
            stats.zip(data.chunks_exact(n)).for_each(|((m, v), x)| (*m, *v) = mean_var(x, correction));
        }
        let tensor = |buffer| Tensor::from_cpu(buffer, shape, x.dtype());
        (tensor(mean), tensor(var))
    }
    let shape: Shape = x.dims().iter().enumerate().map(|(d, &n)| if d < first { n } else { 1 }).collect();
    match x.dtype() {
        DType::F32 => Some(run::<f32>(x, &shape, correction)),
        DType::F64 => Some(run::<f64>(x, &shape, correction)),
        _ => None,
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
    fn threads_do_not_show() {
        let (x, y) = (noise::<f32>(300_001, 1), noise::<f32>(300_001, 2));
        let run = || {
            let mut c = vec![0.0; 7];
            reduce_columns::<Sum, f32>(&x[..300_000 / 7 * 7], &mut c, 7);
            (reduce::<Sum, f32>(&x), reduce::<Max, f32>(&y), mean_var(&x, 1.0), c)
        };
        assert_eq!(on_threads(1, run), on_threads(4, run));
    }
}
