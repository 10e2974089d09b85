//! Matrix × vector: every element of the matrix is used once, so the memory's bandwidth is all that counts.

use super::element::Rounded;
use super::kernel::{Accumulator, DOT_ROWS, Kernel};
use super::pack::Side;
use super::scheme::Scheme;
use super::{GemmElement, MatRef};
use crate::cpu::level::Level;
use crate::cpu::parallel::*;
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::simd_fn;
use std::array;

/// Columns of a task when the matrix is read along its columns: 8 KiB of each row at a time.
const STRIP: usize = 2048;
/// Rows that are added together in that case.
const DEPTH: usize = 8;
/// Matrix elements that are worth a task of their own.
const TASK: usize = 1 << 16;

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
    let parallel = parallel && n * k >= 2 * TASK && rayon::current_num_threads() > 1;
    // Where a packed value is one term, `x` widened is `x` packed.
    let packs = mat.cs == 1 && S::DEPTH > 1;
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
        let strip = if by_rows { (TASK / k).max(1).next_multiple_of(DOT_ROWS) } else { STRIP };
        let task = |(t, y): (usize, &mut [O])| {
            let mat = mat.at(t * strip, 0);
            with_scratch(y.len(), |sums: &mut [T::Acc]| {
                if by_rows {
                    dots::<S, T>(level, &kernel, mat, (x, packed), sums)
                } else {
                    axpys(level, mat, x, sums)
                }
                match bias {
                    None => {}
                    Some(Bias::Each(bias)) => {
                        sums.iter_mut().zip(&bias[t * strip..]).for_each(|(s, &b)| *s = T::Acc::add(*s, b))
                    }
                    Some(Bias::All(b)) => sums.iter_mut().for_each(|s| *s = T::Acc::add(*s, b)),
                }
                O::round(sums, y, accumulate);
            });
        };
        if parallel {
            y.par_chunks_mut(strip).enumerate().for_each(task);
        } else {
            y.chunks_mut(strip).enumerate().for_each(task);
        }
    });
}

/// `sums[i] = Σ_p mat[i][p] · x[p]`, rows being contiguous; `packed` is `x` as the kernel takes it.
fn dots<S: Scheme<T>, T: GemmElement>(
    level: Level,
    kernel: &Kernel<T::Acc>,
    mat: MatRef<T>,
    (x, packed): (&[T::Acc], &[T::Acc]),
    sums: &mut [T::Acc],
) {
    let k = x.len();
    let row = |i: usize| &mat.data[mat.at(i, 0).offset..][..k];
    let ahead = mat.rs.wrapping_mul(DOT_ROWS as isize) / S::DEPTH as isize;
    // A last, shorter group repeats its last row: cheaper than another kernel, and the same arithmetic.
    let last = sums.len() - 1;
    for (g, group) in sums.chunks_mut(DOT_ROWS).enumerate() {
        let rows: [&[T]; DOT_ROWS] = array::from_fn(|r| row((g * DOT_ROWS + r).min(last)));
        let dots = match (kernel.dot, rows.map(S::terms)) {
            // SAFETY: the kernel's level was checked when it was chosen.
            (Some(dot), [Some(a), Some(b), Some(c), Some(d)]) => unsafe { dot([a, b, c, d], packed, ahead) },
            _ => S::dots(level, rows, x, packed),
        };
        group.copy_from_slice(&dots[..group.len()]);
    }
}

/// Lanes of a running sum: two of the longest vectors.
const LANES: usize = 32;

simd_fn! {
    /// The dot products of rows that are widened on the way: what memory delivers is half as wide as what is computed.
    pub fn widening_dots[S]<T: GemmElement>(rows: [&[T]; DOT_ROWS], x: &[T::Acc]) -> [T::Acc; DOT_ROWS] {
        let fma = |a, b, c| if S::FUSED { T::Acc::mul_add::<true>(a, b, c) } else { T::Acc::mul_add::<false>(a, b, c) };
        let whole = x.len() / LANES * LANES;
        let mut sums = [[T::Acc::ZERO; LANES]; DOT_ROWS];
        for p in (0..whole).step_by(LANES) {
            let xs = &x[p..p + LANES];
            for r in 0..DOT_ROWS {
                let row = &rows[r][p..p + LANES];
                for l in 0..LANES {
                    sums[r][l] = fma(row[l].widen(), xs[l], sums[r][l]);
                }
            }
        }
        array::from_fn(|r| {
            let mut width = LANES / 2;
            while width > 0 {
                for l in 0..width {
                    sums[r][l] = T::Acc::add(sums[r][l], sums[r][l + width]);
                }
                width /= 2;
            }
            (whole..x.len()).fold(sums[r][0], |sum, p| fma(rows[r][p].widen(), x[p], sum))
        })
    }
}

simd_fn! {
    /// The dot products of rows of 8-bit integers. Each is a plain sum, which the compiler may reorder as integers are
    /// added in any order: it finds `pmaddwd` and its like in it. One row after another is one stream from memory.
    pub fn int8_dots[S]<X: Small>(rows: [&[i8]; DOT_ROWS], x: &[X]) -> [i32; DOT_ROWS] {
        rows.map(|row| row.iter().zip(x).fold(0i32, |sum, (&a, &x)| sum.wrapping_add(a as i32 * x.into())))
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
