//! Matrix × vector: every element of the matrix is used once, so the memory's bandwidth is all that counts.

use super::kernel::Accumulator;
use super::pack::finish;
use super::{GemmElement, MatRef, buffer};
use crate::cpu::level::Level;
use rayon::prelude::*;

/// Lanes of a dot product's running sum. Fixed, so that the result depends on nothing but `k` and the level.
const LANES: usize = 16;
/// Rows whose dot products run together and share the loads of `x`.
const ROWS: usize = 4;
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

/// `y (+)= mat · x` for `mat` of `[y.len(), k]` and a column `x` of `[k, 1]`.
pub fn gemv<T: GemmElement>(
    level: Level,
    k: usize,
    mat: MatRef<T>,
    x: MatRef<T>,
    y: &mut [T],
    accumulate: bool,
    parallel: bool,
) {
    let n = y.len();
    let parallel = parallel && n * k >= 2 * TASK && rayon::current_num_threads() > 1;
    buffer::with(k, |buf: &mut [T::Acc]| {
        for (p, v) in buf.iter_mut().enumerate() {
            *v = x.get(p, 0).widen();
        }
        let x = &*buf;
        let by_rows = mat.cs == 1;
        let strip = if by_rows { (TASK / k).next_multiple_of(ROWS) } else { STRIP };
        let task = |(t, y): (usize, &mut [T])| {
            let mat = mat.at(t * strip, 0);
            buffer::with(y.len(), |sums: &mut [T::Acc]| {
                if by_rows {
                    dots(level, mat, x, sums)
                } else {
                    axpys(level, mat, x, sums)
                }
                finish(sums, y, accumulate);
            });
        };
        if parallel {
            y.par_chunks_mut(strip).enumerate().for_each(task);
        } else {
            y.chunks_mut(strip).enumerate().for_each(task);
        }
    });
}

/// Compiles `$body` once per level and calls the right one.
macro_rules! by_level {
    ($name:ident, $body:ident) => {
        fn $name<T: GemmElement>(level: Level, mat: MatRef<T>, x: &[T::Acc], sums: &mut [T::Acc]) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn avx512<T: GemmElement>(mat: MatRef<T>, x: &[T::Acc], sums: &mut [T::Acc]) {
                    $body::<T, true>(mat, x, sums)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2<T: GemmElement>(mat: MatRef<T>, x: &[T::Acc], sums: &mut [T::Acc]) {
                    $body::<T, true>(mat, x, sums)
                }
                // SAFETY: a `Level` above `Portable` is only made where the CPU has its instructions.
                match level {
                    Level::Avx512 => return unsafe { avx512(mat, x, sums) },
                    Level::Avx2 => return unsafe { avx2(mat, x, sums) },
                    Level::Portable => {}
                }
            }
            let _ = level;
            $body::<T, false>(mat, x, sums)
        }
    };
}
by_level!(dots, dots_body);
by_level!(axpys, axpys_body);

/// `sums[i] = Σ_p mat[i][p] · x[p]`, rows being contiguous.
#[inline(always)]
fn dots_body<T: GemmElement, const FMA: bool>(mat: MatRef<T>, x: &[T::Acc], sums: &mut [T::Acc]) {
    let row = |i: usize| {
        let start = mat.at(i, 0).offset;
        &mat.data[start..start + x.len()]
    };
    let mut groups = sums.chunks_exact_mut(ROWS);
    let mut i = 0;
    for group in groups.by_ref() {
        group.copy_from_slice(&dot::<T, FMA, ROWS>([row(i), row(i + 1), row(i + 2), row(i + 3)], x));
        i += ROWS;
    }
    for sum in groups.into_remainder() {
        [*sum] = dot::<T, FMA, 1>([row(i)], x);
        i += 1;
    }
}

/// `R` dot products. Each is the same sequence of operations whatever `R` is.
#[inline(always)]
fn dot<T: GemmElement, const FMA: bool, const R: usize>(rows: [&[T]; R], x: &[T::Acc]) -> [T::Acc; R] {
    let mut acc = [[T::Acc::ZERO; LANES]; R];
    let whole = x.len() / LANES * LANES;
    for p in (0..whole).step_by(LANES) {
        let xs: &[T::Acc; LANES] = x[p..p + LANES].try_into().expect("LANES long");
        for r in 0..R {
            let row: &[T; LANES] = rows[r][p..p + LANES].try_into().expect("LANES long");
            for l in 0..LANES {
                acc[r][l] = T::Acc::mul_add::<FMA>(row[l].widen(), xs[l], acc[r][l]);
            }
        }
    }
    let mut sums = [T::Acc::ZERO; R];
    for r in 0..R {
        let mut width = LANES / 2;
        while width > 0 {
            for l in 0..width {
                acc[r][l] = T::Acc::add(acc[r][l], acc[r][l + width]);
            }
            width /= 2;
        }
        sums[r] = acc[r][0];
        for p in whole..x.len() {
            sums[r] = T::Acc::mul_add::<FMA>(rows[r][p].widen(), x[p], sums[r]);
        }
    }
    sums
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
        let columns: [&[T]; DEPTH] = std::array::from_fn(|d| column(p + d));
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
