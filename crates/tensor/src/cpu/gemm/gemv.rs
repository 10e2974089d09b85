//! Matrix × vector: every element of the matrix is used once, so the memory's bandwidth is all that counts.

use super::blocked::even;
use super::element::Rounded;
use super::kernel::{Accumulator, Kernel};
use super::pack::Side;
use super::scheme::Scheme;
use super::{GemmElement, MatRef};
use crate::cpu::level::Level;
use crate::cpu::parallel::*;
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::simd_fn;
use std::array;

/// Most columns of a task when the matrix is read along its columns: pieces of memory as long as their sums, which stay in
/// the L2 cache, allow.
const STRIP: usize = 8192;
/// Rows that are added together in that case.
const DEPTH: usize = 8;
/// Most parts that a sum is made of.
const PARTS: usize = 64;
/// Matrix elements that are worth a task of their own.
const TASK: usize = 1 << 16;
/// Columns that are enough for all threads: each has a strip that is long pieces of memory still.
const WIDE: usize = 2 * STRIP;

/// Whether [`gemv`] can multiply by this matrix.
pub fn supports<T>(mat: &MatRef<T>) -> bool {
    mat.cs == 1 || mat.rs == 1
}

/// What is added to the sums before they are rounded.
#[derive(Clone, Copy)]
pub enum Bias<'a, A> {
    /// One value for each.
    Each(&'a [A]),
    /// One value for all.
    All(A),
}

/// `y (+)= mat · x + bias` for `mat` of `[y.len(), k]` and a column `x` of `[k, 1]`.
pub fn gemv<S: Scheme<T>, T: GemmElement, O: Rounded<T::Acc>>(
    level: Level,
    k: usize,
    mat: MatRef<T>,
    x: MatRef<T>,
    y: &mut [O],
    accumulate: bool,
    bias: Option<Bias<T::Acc>>,
    parallel: bool,
) {
    let n = y.len();
    let kernel = S::kernel(level);
    let threads = if parallel && n * k >= 2 * TASK { rayon::current_num_threads() } else { 1 };
    let parallel = threads > 1;
    // Where a packed value is one term, `x` widened is `x` packed.
    let packs = mat.cs == 1 && S::DEPTH > 1;
    // What the sums of `y` from `first` on still lack.
    let finish = |first: usize, sums: &mut [T::Acc], y: &mut [O]| {
        match bias {
            None => {}
            Some(Bias::Each(bias)) => sums.iter_mut().zip(&bias[first..]).for_each(|(s, &b)| *s = T::Acc::add(*s, b)),
            Some(Bias::All(b)) => sums.iter_mut().for_each(|s| *s = T::Acc::add(*s, b)),
        }
        O::round(sums, y, accumulate);
    };
    with_scratch(k + if packs { k.div_ceil(S::DEPTH) } else { 0 }, |buf: &mut [T::Acc]| {
        let (wide, packed) = buf.split_at_mut(k);
        for (p, v) in wide.iter_mut().enumerate() {
            *v = x.get(p, 0).widen();
        }
        if packs {
            S::pack(&kernel, Side::Right, x.t(), 1, k, 1, packed);
        }
        let (x, packed) = (&*wide, if packs { &*packed } else { &*wide });
        let by_rows = mat.cs == 1;
        if !by_rows && n < WIDE && n * k > TASK {
            return in_parts(level, mat, x, n, parallel, |sums| finish(0, sums, y));
        }
        // A column's sum is the same in any strip.
        let strip = if by_rows { (TASK / k).max(1) } else { even(n, STRIP.min(n.div_ceil(2 * threads)), 64) };
        let task = |(t, y): (usize, &mut [O])| {
            let mat = mat.at(t * strip, 0);
            with_scratch(y.len(), |sums: &mut [T::Acc]| {
                if by_rows {
                    dots::<S, T>(level, &kernel, mat, (x, packed), sums)
                } else {
                    axpys(level, mat, x, sums)
                }
                finish(t * strip, sums, y);
            });
        };
        if parallel {
            y.par_chunks_mut(strip).enumerate().for_each(task);
        } else {
            y.chunks_mut(strip).enumerate().for_each(task);
        }
    });
}

/// [`axpys`] for some columns at a time, whose sums are added in the end, in order: whole columns, one after another in
/// memory, are one stretch of it for each task, where strips of all columns would be short pieces. The parts depend on the
/// shape alone, and so does the result.
fn in_parts<T: GemmElement>(
    level: Level,
    mat: MatRef<T>,
    x: &[T::Acc],
    n: usize,
    parallel: bool,
    finish: impl FnOnce(&mut [T::Acc]),
) {
    let depth = even(x.len(), TASK.div_ceil(n).max(x.len().div_ceil(PARTS)), DEPTH);
    with_scratch(x.len().div_ceil(depth) * n, |sums: &mut [T::Acc]| {
        let part = |(t, sums): (usize, &mut [T::Acc])| {
            let first = t * depth;
            axpys(level, mat.at(0, first), &x[first..x.len().min(first + depth)], sums)
        };
        if parallel {
            sums.par_chunks_mut(n).with_max_len(1).enumerate().for_each(part);
        } else {
            sums.chunks_mut(n).enumerate().for_each(part);
        }
        let (total, parts) = sums.split_at_mut(n);
        for part in parts.chunks_exact(n) {
            total.iter_mut().zip(part).for_each(|(t, &s)| *t = T::Acc::add(*t, s));
        }
        finish(total);
    });
}

/// `sums[i] = Σ_p mat[i][p] · x[p]`, rows being contiguous; `packed` is `x` as the kernel takes it.
///
/// Row after row: one stream from memory, which the hardware reads ahead in, where four rows side by side reach two thirds
/// of its speed.
fn dots<S: Scheme<T>, T: GemmElement>(
    level: Level,
    kernel: &Kernel<T::Acc>,
    mat: MatRef<T>,
    (x, packed): (&[T::Acc], &[T::Acc]),
    sums: &mut [T::Acc],
) {
    for (i, sum) in sums.iter_mut().enumerate() {
        let row = &mat.data[mat.at(i, 0).offset..][..x.len()];
        *sum = match (kernel.dot, S::terms(row)) {
            // SAFETY: the kernel's level was checked when it was chosen.
            (Some(dot), Some(row)) => unsafe { dot(row, packed) },
            _ => S::dot(level, row, x, packed),
        };
    }
}

/// Lanes of a running sum: four of the longest vectors.
const LANES: usize = 64;

simd_fn! {
    /// The dot product of a row that is widened on the way: what memory delivers is half as wide as what is computed.
    pub fn widening_dot[S]<T: GemmElement>(row: &[T], x: &[T::Acc]) -> T::Acc {
        let fma = |a, b, c| if S::FUSED { T::Acc::mul_add::<true>(a, b, c) } else { T::Acc::mul_add::<false>(a, b, c) };
        let mut sums = [T::Acc::ZERO; LANES];
        let ((row, row_rest), (x, x_rest)) = (row.as_chunks::<LANES>(), x.as_chunks::<LANES>());
        for (row, x) in row.iter().zip(x) {
            for l in 0..LANES {
                sums[l] = fma(row[l].widen(), x[l], sums[l]);
            }
        }
        let mut width = LANES / 2;
        while width > 0 {
            for l in 0..width {
                sums[l] = T::Acc::add(sums[l], sums[l + width]);
            }
            width /= 2;
        }
        row_rest.iter().zip(x_rest).fold(sums[0], |sum, (r, &x)| fma(r.widen(), x, sum))
    }
}

simd_fn! {
    /// The dot product of 8-bit integers: a plain sum, which the compiler may reorder as integers are added in any order;
    /// it finds `pmaddwd` and its like in it.
    pub fn int8_dot[S]<X: Small>(row: &[i8], x: &[X]) -> i32 {
        row.iter().zip(x).fold(0i32, |sum, (&a, &x)| sum.wrapping_add(a as i32 * x.into()))
    }
}

/// An integer of at most 16 bits.
pub trait Small: Copy + Into<i32> {}
impl Small for i8 {}
impl Small for i16 {}

/// [`axpys_body`], compiled for each level.
fn axpys<T: GemmElement>(level: Level, mat: MatRef<T>, x: &[T::Acc], sums: &mut [T::Acc]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn avx512<T: GemmElement>(mat: MatRef<T>, x: &[T::Acc], sums: &mut [T::Acc]) {
            axpys_body::<T, true>(mat, x, sums)
        }
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2<T: GemmElement>(mat: MatRef<T>, x: &[T::Acc], sums: &mut [T::Acc]) {
            axpys_body::<T, true>(mat, x, sums)
        }
        // SAFETY: `gemm_at` is called with a level that this CPU has.
        match level {
            Level::Avx512 => return unsafe { avx512(mat, x, sums) },
            Level::Avx2 => return unsafe { avx2(mat, x, sums) },
            Level::Portable => {}
        }
    }
    let _ = level;
    axpys_body::<T, false>(mat, x, sums)
}

/// `sums[j] = Σ_p mat[j][p] · x[p]`, columns being contiguous: the sum of `x[p]` times column `p`.
#[inline(always)]
fn axpys_body<T: GemmElement, const FMA: bool>(mat: MatRef<T>, x: &[T::Acc], sums: &mut [T::Acc]) {
    sums.fill(T::Acc::ZERO);
    let n = sums.len();
    let column = |p: usize| {
        let start = mat.at(0, p).offset;
        &mat.data[start..start + n]
    };
    let mut groups = x.chunks_exact(DEPTH);
    let mut p = 0;
    for xs in groups.by_ref() {
        let columns: [&[T]; DEPTH] = array::from_fn(|d| column(p + d));
        for j in 0..n {
            let mut s = sums[j];
            for d in 0..DEPTH {
                s = T::Acc::mul_add::<FMA>(columns[d][j].widen(), xs[d], s);
            }
            sums[j] = s;
        }
        p += DEPTH;
    }
    for &xp in groups.remainder() {
        for (s, v) in sums.iter_mut().zip(column(p)) {
            *s = T::Acc::mul_add::<FMA>(v.widen(), xp, *s);
        }
        p += 1;
    }
}
