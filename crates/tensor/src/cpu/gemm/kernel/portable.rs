//! The micro-kernel in plain Rust: fixed-size loops that the compiler turns into whatever SIMD the target has.

use super::{Accumulator, Kernel, Tile, transpose};

/// The kernel for tiles of up to `MR × NR`.
pub const fn kernel<A: Accumulator, const MR: usize, const NR: usize>() -> Kernel<A> {
    Kernel { dot: Some(dot::<A>), ..kernel_of::<A, One, MR, NR>() }
}

/// The same for packed values that hold more than one term.
pub const fn kernel_of<A: Accumulator, P: Packing<A>, const MR: usize, const NR: usize>() -> Kernel<A> {
    Kernel { mr: MR, nr: NR, run: run::<A, P, MR, NR>, dot: None, transpose: transpose::scalar::<A> }
}

/// What packed values hold.
pub trait Packing<A> {
    /// The sum of the products of their terms, and `c`.
    fn mul_add(a: A, b: A, c: A) -> A;
}

/// One term.
pub struct One;

impl<A: Accumulator> Packing<A> for One {
    #[inline(always)]
    fn mul_add(a: A, b: A, c: A) -> A {
        A::mul_add::<false>(a, b, c)
    }
}

/// Two 16-bit integers.
pub struct Words;

impl Packing<i32> for Words {
    #[inline(always)]
    fn mul_add(a: i32, b: i32, c: i32) -> i32 {
        let (low, high) = (a as i16 as i32 * b as i16 as i32, (a >> 16) * (b >> 16));
        c.wrapping_add(low).wrapping_add(high)
    }
}

/// The same loops, compiled for AVX2: what integers use there.
#[cfg(target_arch = "x86_64")]
pub const fn kernel_avx2<A: Accumulator, const MR: usize, const NR: usize>() -> Kernel<A> {
    /// # Safety
    /// As [`Kernel::run`].
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn run_avx2<A: Accumulator, const MR: usize, const NR: usize>(rows: usize, cols: usize, t: &Tile<A>) {
        // SAFETY: the caller's promise is this function's.
        unsafe { run::<A, One, MR, NR>(rows, cols, t) }
    }
    Kernel { run: run_avx2::<A, MR, NR>, ..kernel::<A, MR, NR>() }
}

/// # Safety
/// As [`Kernel::run`].
#[inline(always)]
unsafe fn run<A: Accumulator, P: Packing<A>, const MR: usize, const NR: usize>(rows: usize, cols: usize, t: &Tile<A>) {
    // SAFETY: the caller's promise is this function's.
    unsafe {
        if (rows, cols) == (MR, NR) { tile::<A, P, MR, NR>(MR, NR, t) } else { tile::<A, P, MR, NR>(rows, cols, t) }
    }
}

/// Inlined once with constant `rows` and `cols`, which become vector code, and once for the edges.
///
/// # Safety
/// As [`Kernel::run`].
#[inline(always)]
unsafe fn tile<A: Accumulator, P: Packing<A>, const MR: usize, const NR: usize>(rows: usize, cols: usize, t: &Tile<A>) {
    let mut acc = [[A::ZERO; NR]; MR];
    let (mut a, mut b) = (t.a, t.b);
    for _ in 0..t.k {
        let mut bv = [A::ZERO; NR];
        for j in 0..cols {
            // SAFETY: `j < cols` and `b` is at a row below `k`.
            bv[j] = unsafe { *b.add(j) };
        }
        for i in 0..rows {
            // SAFETY: `i < rows` and `a` is at a column below `k`.
            let ai = unsafe { *a.offset(i as isize * t.a_rs) };
            for j in 0..NR {
                acc[i][j] = P::mul_add(ai, bv[j], acc[i][j]);
            }
        }
        a = a.wrapping_offset(t.a_cs);
        b = b.wrapping_offset(t.b_rs);
    }
    for i in 0..rows {
        for j in 0..cols {
            // SAFETY: `(i, j)` is inside the tile, which this call alone writes; `j` is a column of the bias.
            unsafe {
                let c = t.c.add(i * t.ldc + j);
                let sum = if t.bias.is_null() { acc[i][j] } else { A::add(acc[i][j], *t.bias.add(j)) };
                *c = if t.accumulate { A::add(*c, sum) } else { sum };
            }
        }
    }
}

/// As [`Kernel::dot`].
fn dot<A: Accumulator>(row: &[A], x: &[A]) -> A {
    const LANES: usize = 8;
    let mut acc = [A::ZERO; LANES];
    let (mut rs, mut xs) = (row.chunks_exact(LANES), x.chunks_exact(LANES));
    for (r, x) in rs.by_ref().zip(xs.by_ref()) {
        for l in 0..LANES {
            acc[l] = A::mul_add::<false>(r[l], x[l], acc[l]);
        }
    }
    let sum = acc.into_iter().fold(A::ZERO, A::add);
    rs.remainder().iter().zip(xs.remainder()).fold(sum, |sum, (&r, &x)| A::mul_add::<false>(r, x, sum))
}
