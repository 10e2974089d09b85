//! General matrix product on the CPU.
//!
//! `C[i][j] = Σ_p A[i][p] · B[p][j]`, blocked for the cache hierarchy after Goto & van de Geijn, *Anatomy of
//! High-Performance Matrix Multiplication* (2008), with the loops of Van Zee & van de Geijn, *BLIS* (2015):
//!
//! ```text
//! in parallel, for pieces of C          about as many as threads, or a few times that; none waits for another
//!   for j in 0..n by NC                 columns of C, B
//!     for p in 0..k by KC               depth; later steps add to C
//!       pack B[p..p+KC, j..j+NC]        into panels NR wide: L3
//!       for i in 0..m by M_BLOCK        rows of C, A
//!         pack A[i..i+M_BLOCK, p..p+KC] into panels MR high, unless it can be read where it lies
//!         for some columns              B's: L2
//!           for ir by MR                one panel of A: L1
//!             for jr by NR              one micro-tile of C: registers
//!               micro-kernel            C[MR × NR] += A panel · B panel, over KC
//! ```
//!
//! Per element of `A` and `B` that reaches the registers there are `NR` and `MR` multiply-adds; per element that leaves
//! main memory there are hundreds, so the product runs at the speed of the arithmetic.
//!
//! - `kernel`: the micro-kernels, for AVX-512, AVX2, NEON and any CPU; chosen at run time.
//! - `scheme`: what panels hold: elements, or some neighbours of a sum for the CPU's dot products of bf16 and int8.
//! - `pack`: packing, from any strides. Small and thin operands, and rows of `A` that the L1 cache can hold side by
//!   side, are read where they lie instead.
//! - `blocked`: the loops. Depth is never divided among threads, and each element of `C` is the same sequence of
//!   operations wherever tile borders fall: **results do not depend on the number of threads**.
//! - `packed`: a right operand that is packed before its product.
//! - `gemv`: matrix × vector, which the memory limits.

mod blocked;
mod element;
mod gemv;
mod kernel;
mod pack;
mod packed;
mod scheme;
#[cfg(test)]
mod tests;

pub use element::GemmElement;
use element::Rounded;
pub use kernel::Accumulator;
pub use pack::transpose;
pub use packed::{Packed, Panel};

use crate::cpu::level::{Level, level};
use crate::cpu::parallel::*;
use crate::cpu::scratch::with_scratch;
use blocked::Product;
use gemv::Bias;
use scheme::Scheme;

/// A matrix inside a slice: element `(i, j)` is `data[offset + i * rs + j * cs]`. Strides may be zero or negative.
#[derive(Clone, Copy)]
pub struct MatRef<'a, T> {
    /// The storage.
    pub data: &'a [T],
    /// Index of element `(0, 0)`.
    pub offset: usize,
    /// Row stride, in elements.
    pub rs: isize,
    /// Column stride, in elements.
    pub cs: isize,
}

impl<'a, T: Copy> MatRef<'a, T> {
    /// A row-major matrix whose rows are `cs` apart by one element and `rs` apart by `cols`.
    pub fn row_major(data: &'a [T], cols: usize) -> Self {
        MatRef { data, offset: 0, rs: cols as isize, cs: 1 }
    }
    /// The same matrix transposed: no data moves.
    pub fn t(self) -> Self {
        MatRef { rs: self.cs, cs: self.rs, ..self }
    }
    /// The same indices into another slice.
    fn over<U>(self, data: &'a [U]) -> MatRef<'a, U> {
        MatRef { data, offset: self.offset, rs: self.rs, cs: self.cs }
    }
    /// The matrix whose `(0, 0)` is this one's `(i, j)`.
    pub fn at(self, i: usize, j: usize) -> Self {
        let offset = self.offset as isize + i as isize * self.rs + j as isize * self.cs;
        MatRef { offset: offset as usize, ..self }
    }
    /// Element `(i, j)`.
    #[inline]
    pub fn get(&self, i: usize, j: usize) -> T {
        self.data[(self.offset as isize + i as isize * self.rs + j as isize * self.cs) as usize]
    }
    /// Panics unless all of `[rows, cols]`, neither of which is zero, is inside the slice.
    fn check(&self, name: &str, rows: usize, cols: usize) {
        let (mut first, mut last) = (self.offset as i128, self.offset as i128);
        for (extent, stride) in [(rows, self.rs), (cols, self.cs)] {
            let span = (extent as i128 - 1) * stride as i128;
            if span < 0 { first += span } else { last += span }
        }
        assert!(
            first >= 0 && last < self.data.len() as i128,
            "gemm: {name} of {rows} × {cols}, strides ({}, {}), offset {}, reaches {first}..={last} of a slice of {}",
            self.rs,
            self.cs,
            self.offset,
            self.data.len()
        );
    }
}

/// `C = A·B` (or `C += A·B` if `accumulate`), A is `[m, k]`, B is `[k, n]`, C is `[m, n]` with rows `ldc` elements apart.
///
/// Sums run over the whole of `k` in [`GemmElement::Acc`] and are rounded once. `parallel` lets it use the rayon pool;
/// the result does not depend on the number of threads.
///
/// # Panics
/// If an operand's strides lead outside its slice, if `ldc < n` or if `C` does not fit.
pub fn gemm<T: GemmElement>(
    m: usize,
    n: usize,
    k: usize,
    a: MatRef<T>,
    b: MatRef<T>,
    c: &mut [T],
    ldc: usize,
    accumulate: bool,
    parallel: bool,
) {
    gemm_at(level(), Product { m, n, k, a, b, accumulate, bias: None }, c, ldc, parallel);
}

/// `C = A·B + bias`: [`gemm`] with a bias `[n]` that is added to each row, in the sum's type.
///
/// # Panics
/// As [`gemm`], or if there are not `n` of it.
pub fn gemm_bias<T: GemmElement>(
    m: usize,
    n: usize,
    k: usize,
    a: MatRef<T>,
    b: MatRef<T>,
    bias: &[T::Acc],
    c: &mut [T],
) {
    assert_eq!(bias.len(), n, "gemm: the bias is [n]");
    gemm_at(level(), Product { m, n, k, a, b, accumulate: false, bias: Some(bias) }, c, n, true);
}

/// [`gemm`] with `C` in the sum's type, which nothing is rounded to: `i8 × i8 → i32`, for instance.
///
/// # Panics
/// As [`gemm`].
pub fn gemm_wide<T: GemmElement>(
    m: usize,
    n: usize,
    k: usize,
    a: MatRef<T>,
    b: MatRef<T>,
    c: &mut [T::Acc],
    ldc: usize,
    accumulate: bool,
    parallel: bool,
) {
    gemm_at(level(), Product { m, n, k, a, b, accumulate, bias: None }, c, ldc, parallel);
}

/// `C[i] = A[i]·B[i]` (or `+=` if `accumulate`) for each `i` below `batch`; C is a contiguous `[batch, m, n]`.
///
/// `a_batch(i)` and `b_batch(i)` are the indices of `A[i][0][0]` in `a.data` and `B[i][0][0]` in `b.data`; the offsets in
/// `a` and `b` themselves are not used. If `parallel`, the threads share the batch out among them if it is large, and
/// each product if the batch is small.
///
/// # Panics
/// As [`gemm`].
pub fn gemm_batched<T: GemmElement>(
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    a: MatRef<T>,
    a_batch: &(dyn Fn(usize) -> usize + Sync),
    b: MatRef<T>,
    b_batch: &(dyn Fn(usize) -> usize + Sync),
    c: &mut [T],
    accumulate: bool,
    parallel: bool,
) {
    assert!(c.len() >= batch * m * n, "gemm_batched: C has {} elements, not {batch} × {m} × {n}", c.len());
    if batch * m * n == 0 {
        return;
    }
    let level = level();
    let one = |i: usize, c: &mut [T], parallel: bool| {
        let (a, b) = (MatRef { offset: a_batch(i), ..a }, MatRef { offset: b_batch(i), ..b });
        gemm_at(level, Product { m, n, k, a, b, accumulate, bias: None }, c, n, parallel);
    };
    let c = &mut c[..batch * m * n];
    let (work, threads) = (m * n * k.max(1), if parallel { rayon::current_num_threads() } else { 1 });
    // A product smaller than this loses more by being divided than the batch's uneven end costs.
    const SMALL: usize = 1 << 21;
    if threads > 1 && batch > 1 && batch * work >= 2 * BATCH_TASK && (batch >= 4 * threads || work < SMALL) {
        let group = BATCH_TASK.div_ceil(work).min(batch.div_ceil(threads));
        c.par_chunks_mut(group * m * n).enumerate().for_each(|(g, c)| {
            for (i, c) in c.chunks_exact_mut(m * n).enumerate() {
                one(g * group + i, c, false);
            }
        });
    } else {
        for (i, c) in c.chunks_exact_mut(m * n).enumerate() {
            one(i, c, threads > 1);
        }
    }
}

/// Multiply-adds that are worth a task of their own in a batch.
const BATCH_TASK: usize = 1 << 18;

/// [`gemm`] at a given level, which this CPU must have.
///
/// `C` is of the operands' type or of the sum's.
fn gemm_at<T: GemmElement, O: Rounded<T::Acc>>(level: Level, x: Product<T>, c: &mut [O], ldc: usize, parallel: bool) {
    let Product { m, n, k, a, b, accumulate, bias } = x;
    if m == 0 || n == 0 {
        return;
    }
    let c_len = (m - 1).checked_mul(ldc).and_then(|rows| rows.checked_add(n));
    assert!(
        (m == 1 || ldc >= n) && c_len.is_some_and(|len| len <= c.len()),
        "gemm: C of {} elements cannot hold {m} × {n} with rows {ldc} apart",
        c.len()
    );
    let c = &mut c[..(m - 1) * ldc + n];
    if k == 0 {
        for row in c.chunks_mut(ldc.max(n)) {
            let mut sums: Vec<T::Acc> = bias.map_or_else(|| vec![T::Acc::ZERO; n], <[T::Acc]>::to_vec);
            O::round(&mut sums, &mut row[..n], accumulate);
        }
        return;
    }
    a.check("A", m, k);
    b.check("B", k, n);
    let gemv = match T::fast(level) {
        true => gemv::gemv::<T::Fast, T, O>,
        false => gemv::gemv::<T::Plain, T, O>,
    };
    if m == 1 && gemv::supports(&b.t()) {
        return gemv(level, k, b.t(), a.t(), c, accumulate, bias.map(Bias::Each), parallel);
    }
    if n == 1 && gemv::supports(&a) {
        let bias = bias.map(|b| Bias::All(b[0]));
        if ldc == 1 {
            return gemv(level, k, a, b, c, accumulate, bias, parallel);
        }
        return with_scratch(m, |column: &mut [O]| {
            column.iter_mut().zip(c.iter().step_by(ldc)).for_each(|(t, c)| *t = *c);
            gemv(level, k, a, b, column, accumulate, bias, parallel);
            c.iter_mut().step_by(ldc).zip(column.iter()).for_each(|(c, t)| *c = *t);
        });
    }
    if T::fast(level) {
        return product::<T::Fast, T, O>(level, x, c, ldc.max(n), parallel);
    }
    product::<T::Plain, T, O>(level, x, c, ldc.max(n), parallel)
}

/// The product by one scheme.
fn product<S: Scheme<T>, T: GemmElement, O: Rounded<T::Acc>>(
    level: Level,
    x: Product<T>,
    c: &mut [O],
    ldc: usize,
    parallel: bool,
) {
    if O::SAME || x.k <= blocked::one_block::<S, T>() {
        return blocked::run::<S, T, O>(level, x, c, ldc, parallel);
    }
    through_accumulator::<S, T, O>(level, x, c, ldc, parallel)
}

/// A product of long sums of a type that is not its own accumulator: in pieces of `C` that are summed apart and rounded
/// once.
fn through_accumulator<S: Scheme<T>, T: GemmElement, O: Rounded<T::Acc>>(
    level: Level,
    x: Product<T>,
    c: &mut [O],
    ldc: usize,
    parallel: bool,
) {
    const ROWS: usize = 1024;
    const COLUMNS: usize = 2048;
    let (mc, nc) = (x.m.min(ROWS), x.n.min(COLUMNS));
    with_scratch(mc * nc, |sums: &mut [T::Acc]| {
        for i in (0..x.m).step_by(mc) {
            for j in (0..x.n).step_by(nc) {
                let (m, n) = (mc.min(x.m - i), nc.min(x.n - j));
                let sums = &mut sums[..m * n];
                let (a, b, bias) = (x.a.at(i, 0), x.b.at(0, j), x.bias.map(|b| &b[j..j + n]));
                let piece = Product { m, n, a, b, bias, accumulate: false, ..x };
                blocked::run::<S, T, T::Acc>(level, piece, sums, n, parallel);
                let rows = sums.chunks_exact_mut(n).zip(c[i * ldc..].chunks_mut(ldc));
                let finish = |(sums, c): (&mut [T::Acc], &mut [O])| O::round(sums, &mut c[j..j + n], x.accumulate);
                if parallel && m * n >= 1 << 16 {
                    let rows = sums.par_chunks_mut(n).zip(c[i * ldc..].par_chunks_mut(ldc));
                    rows.with_min_len(16).for_each(finish);
                } else {
                    rows.for_each(finish);
                }
            }
        }
    });
}
