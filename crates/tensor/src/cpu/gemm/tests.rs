//! The product against sums in `f64` (or wrapping integers), for every type, level and layout.

use super::*;
use bytemuck::Pod;
use half::{bf16, f16};
use proptest::prelude::*;

/// An element type, for the tests: how it is made, and how far its product may be off.
trait Case: GemmElement + PartialEq + std::fmt::Debug {
    /// Half the distance from 1 to the next number, of the sum's type and of this type. Zero: exact.
    const SUM_EPS: f64;
    const EPS: f64;
    fn of(x: f64) -> Self;
    fn f64(self) -> f64;
    /// A sum in this type.
    fn narrow(sum: Self::Acc) -> Self;
}
macro_rules! case {
    ($t:ty, $sum:expr, $eps:expr, $of:expr, $to:expr, $narrow:expr) => {
        impl Case for $t {
            const SUM_EPS: f64 = $sum;
            const EPS: f64 = $eps;
            fn of(x: f64) -> Self {
                $of(x)
            }
            fn f64(self) -> f64 {
                $to(self)
            }
            fn narrow(sum: Self::Acc) -> Self {
                $narrow(sum)
            }
        }
    };
}
const F32: f64 = f32::EPSILON as f64 / 2.0;
case!(f32, F32, F32, |x| x as f32, |x| x as f64, |s| s);
case!(f64, f64::EPSILON, f64::EPSILON, |x| x, |x| x, |s| s);
case!(f16, F32, 1.0 / 2048.0, f16::from_f64, f16::to_f64, f16::from_f32);
case!(bf16, F32, 1.0 / 256.0, bf16::from_f64, bf16::to_f64, bf16::from_f32);
case!(i32, 0.0, 0.0, |x: f64| (x * 10.0) as i32, |x| x as f64, |s| s);
case!(i64, 0.0, 0.0, |x: f64| (x * 10.0) as i64, |x: i64| x as f64, |s| s);
case!(i8, 0.0, 0.0, |x: f64| (x * 140.0) as i8, |x| x as f64, |s: i32| s as i8);
case!(u8, 0.0, 0.0, |x: f64| (x * 100.0) as i64 as u8, |x| x as f64, |s| s);

/// Numbers of mixed sign and size, the same on every run.
fn numbers<T: Case>(len: usize, seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        T::of((state >> 11) as f64 / (1u64 << 52) as f64 * 2.0 - 1.0)
    };
    (0..len).map(|_| next()).collect()
}

/// How a matrix lies in its slice.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Rows,
    Columns,
    PaddedRows,
    /// Every second column of every third row.
    Sparse,
    ReversedRows,
    ReversedColumns,
    /// One row or column, repeated.
    SameRow,
    SameColumn,
}
use Layout::*;
const LAYOUTS: [Layout; 8] = [Rows, Columns, PaddedRows, Sparse, ReversedRows, ReversedColumns, SameRow, SameColumn];

/// Offset, row stride, column stride and the slice's length.
fn strides(layout: Layout, rows: usize, cols: usize) -> (usize, isize, isize, usize) {
    let (r, c) = (rows as isize, cols as isize);
    let (rs, cs) = match layout {
        Rows => (c, 1),
        Columns => (1, r),
        PaddedRows => (c + 5, 1),
        Sparse => (6 * c, 2),
        ReversedRows => (-c, 1),
        ReversedColumns => (c, -1),
        SameRow => (0, 1),
        SameColumn => (1, 0),
    };
    let below: isize = [(r, rs), (c, cs)].iter().map(|&(n, s)| if s < 0 { (n - 1).max(0) * -s } else { 0 }).sum();
    let above: isize = [(r, rs), (c, cs)].iter().map(|&(n, s)| if s > 0 { (n - 1).max(0) * s } else { 0 }).sum();
    // Even for plain rows, which are then read where they lie.
    let offset = if let Rows = layout { 4 } else { 3 + below };
    (offset as usize, rs, cs, (offset + above + 1) as usize)
}

fn levels() -> impl Iterator<Item = Level> {
    [Level::Portable, Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= level())
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
    a: Layout,
    b: Layout,
    pad: usize,
    accumulate: bool,
    parallel: bool,
}

/// Every level's product against the definition.
fn check<T: Case>(s: Shape) {
    let Shape { m, n, k, accumulate, .. } = s;
    let (a_offset, a_rs, a_cs, a_len) = strides(s.a, m, k);
    let (b_offset, b_rs, b_cs, b_len) = strides(s.b, k, n);
    let (a_data, b_data) = (numbers::<T>(a_len, 1), numbers::<T>(b_len, 2));
    let a = MatRef { data: &a_data, offset: a_offset, rs: a_rs, cs: a_cs };
    let b = MatRef { data: &b_data, offset: b_offset, rs: b_rs, cs: b_cs };
    let ldc = n + s.pad;
    let before = numbers::<T>(m * ldc, 3);
    for level in levels() {
        let mut c = before.clone();
        gemm_at(level, Product { m, n, k, a, b, accumulate, bias: None }, &mut c, ldc, s.parallel);
        for i in 0..m {
            for j in 0..n {
                let start = if accumulate { before[i * ldc + j] } else { T::of(0.0) };
                let at = format!("({i}, {j}) of {s:?} at {level:?}");
                element(c[i * ldc + j], start, (0..k).map(|p| (a.get(i, p), b.get(p, j))), &at);
            }
            for j in n..ldc {
                assert_eq!(c[i * ldc + j], before[i * ldc + j], "padding of {s:?} at {level:?}");
            }
        }
    }
}

/// One element against its sum.
///
/// A sum of `t` terms in any order, fused or not, is within `(t + 1) · ε · Σ|term|` of the true one (Higham, *Accuracy and
/// Stability*, §3.1), and one rounding to the element type adds `ε` of the result. Integers are exact, modulo their size.
fn element<T: Case>(got: T, start: T, pairs: impl Iterator<Item = (T, T)>, at: &str) {
    if T::EPS == 0.0 {
        let mut sum = start.widen();
        for (x, y) in pairs {
            sum = <T::Acc as kernel::Accumulator>::mul_add::<false>(x.widen(), y.widen(), sum);
        }
        assert_eq!(got, T::narrow(sum), "{at}");
        return;
    }
    let (mut sum, mut size, mut terms) = (start.f64(), start.f64().abs(), 1.0);
    for (x, y) in pairs {
        sum += x.f64() * y.f64();
        size += (x.f64() * y.f64()).abs();
        terms += 1.0;
    }
    // The reference is itself rounded in `f64`, which matters for `f64` alone: hence its doubled ε above.
    let off = (got.f64() - sum).abs();
    let tolerance = (terms + 1.0) * T::SUM_EPS * size + T::EPS * sum.abs() + f64::from(f16::MIN_POSITIVE_SUBNORMAL);
    let tolerance = if T::EPS < 1e-4 { (terms + 2.0) * T::SUM_EPS * size } else { tolerance };
    assert!(off <= tolerance, "{at}: {got:?}, not {sum}: off by {off:e} > {tolerance:e}");
}

fn shape() -> impl Strategy<Value = Shape> {
    let size = || prop_oneof![prop::sample::select(vec![0usize, 1, 7, 15, 16, 17, 31, 33, 63, 64, 65]), 0..90usize];
    let layout = || prop::sample::select(LAYOUTS.to_vec());
    let flags = (prop::sample::select(vec![0usize, 0, 1, 9]), any::<bool>(), any::<bool>());
    (size(), size(), size(), layout(), layout(), flags).prop_map(|(m, n, k, a, b, (pad, accumulate, parallel))| Shape {
        m,
        n,
        k,
        a,
        b,
        pad,
        accumulate,
        parallel,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn f32_any_shape(s in shape()) { check::<f32>(s) }
    #[test]
    fn f64_any_shape(s in shape()) { check::<f64>(s) }
    #[test]
    fn f16_any_shape(s in shape()) { check::<f16>(s) }
    #[test]
    fn bf16_any_shape(s in shape()) { check::<bf16>(s) }
    #[test]
    fn i32_any_shape(s in shape()) { check::<i32>(s) }
    #[test]
    fn i64_any_shape(s in shape()) { check::<i64>(s) }
    #[test]
    fn i8_any_shape(s in shape()) { check::<i8>(s) }
    #[test]
    fn u8_any_shape(s in shape()) { check::<u8>(s) }
}

/// Depths beyond one block, rows beyond one tile of work, and matrix × vector in both layouts.
#[test]
fn blocks_and_vectors() {
    let plain = Shape { m: 0, n: 0, k: 0, a: Rows, b: Rows, pad: 0, accumulate: false, parallel: true };
    for (m, n, k) in [
        (3, 5, 1300),
        (300, 40, 520),
        (40, 700, 600),
        (1, 2100, 70),
        (1, 16500, 9),
        (1, 130, 2000),
        (2100, 1, 70),
        (15, 66, 4200),
    ] {
        for (a, b) in [(Rows, Rows), (Rows, Columns), (Columns, Rows), (ReversedRows, Sparse)] {
            for accumulate in [false, true] {
                check::<f32>(Shape { m, n, k, a, b, accumulate, pad: 2, ..plain });
            }
            check::<bf16>(Shape { m, n, k, a, b, ..plain });
            check::<i8>(Shape { m, n, k, a, b, accumulate: true, ..plain });
            check::<f64>(Shape { m, n, k, a, b, ..plain });
        }
    }
    // More than one tile of columns, more than one block of rows.
    check::<f32>(Shape { m: 50, n: 700, k: 600, parallel: false, ..plain });
    check::<f32>(Shape { m: 4200, n: 70, k: 5, a: Columns, parallel: false, ..plain });
    check::<f16>(Shape { m: 1030, n: 33, k: 20, ..plain });
    check::<f16>(Shape { m: 20, n: 2060, k: 20, accumulate: true, pad: 3, ..plain });
}

/// A set of the L1 cache has eight lines: rows a whole way apart fight for the same ones, others share all sets.
#[test]
fn rows_that_crowd_the_cache() {
    assert!(blocked::crowded(14, 4096, 64));
    assert!(blocked::crowded(14, 4096 + 64, 2048));
    assert!(!blocked::crowded(8, 4096, 4096));
    assert!(!blocked::crowded(14, 2048, 2048));
    assert!(!blocked::crowded(14, 1536, 1536));
    assert!(!blocked::crowded(1, 0, 64));
}

/// Half-precision infinities, NaN and subnormals reach the product as they are.
#[test]
fn f16_special_values() {
    for bits in 0..=u16::MAX {
        let x = f16::from_bits(bits);
        let (got, want) = (x.widen(), x.to_f32());
        assert!(got == want && got.is_sign_negative() == want.is_sign_negative() || got.is_nan() && want.is_nan());
    }
}

/// NaN and infinity are never hidden, in particular not by a zero in the other operand.
#[test]
fn nan_is_not_hidden() {
    for level in levels() {
        for (m, n, k) in [(1, 1, 1), (1, 40, 9), (40, 1, 9), (20, 50, 33)] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut a = vec![0.0; m * k];
                a[(m - 1) * k + k / 2] = bad;
                let b = vec![0.0; k * n];
                let mut c = vec![0.0; m * n];
                let x = Product {
                    m,
                    n,
                    k,
                    a: MatRef::row_major(&a, k),
                    b: MatRef::row_major(&b, n),
                    accumulate: false,
                    bias: None,
                };
                gemm_at(level, x, &mut c, n, false);
                assert!(c[(m - 1) * n..].iter().all(|c| c.is_nan()));
                assert!(c[..(m - 1) * n].iter().all(|&c| c == 0.0));
            }
        }
    }
}

/// Bit for bit the same with any number of threads, and with none.
#[test]
fn threads_do_not_change_the_result() {
    threads_do_not_change::<f32>();
    threads_do_not_change::<bf16>();
}

fn threads_do_not_change<T: Case<Acc = f32> + Pod>() {
    for (m, n, k) in [
        (200, 300, 700),
        (130, 1000, 64),
        (700, 90, 100),
        (50, 700, 600),
        (1, 5000, 300),
        (1, 16500, 9),
        (5000, 1, 300),
        (20, 4000, 90),
    ] {
        for b_layout in [Rows, Columns] {
            let (a, b) = (numbers::<T>(m * k, 1), numbers::<T>(k * n, 2));
            let a = MatRef::row_major(&a, k);
            let b = if let Rows = b_layout { MatRef::row_major(&b, n) } else { MatRef::row_major(&b, k).t() };
            for level in levels() {
                let packed = Packed::new(level, b, k, n);
                let run = |parallel: bool| {
                    let (mut c, mut by_packed) = (numbers::<T>(m * n, 3), vec![0.0; m * n]);
                    gemm_at(level, Product { m, n, k, a, b, accumulate: false, bias: None }, &mut c, n, parallel);
                    packed.product(m, a, &mut by_packed, n, false, parallel);
                    (bytemuck::cast_slice::<T, u8>(&c).to_vec(), by_packed)
                };
                let alone = run(false);
                for threads in [1, 2, 3, 5] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    assert!(pool.install(|| run(true)) == alone, "{m}×{n}×{k}, {threads} threads, {level:?}");
                }
            }
        }
    }
}

/// A batch is its products, one by one, whether shared out or not; an operand may be the same for all.
#[test]
fn batches() {
    for (batch, m, n, k) in
        [(0, 3, 4, 5), (1, 3, 4, 5), (7, 5, 6, 4), (40, 17, 33, 20), (3, 120, 130, 110), (5, 2, 3, 0)]
    {
        let (a, b) = (numbers::<f32>(batch * m * k, 1), numbers::<f32>(k * n, 2));
        let before = numbers::<f32>(batch * m * n, 3);
        for (accumulate, parallel) in [(false, false), (false, true), (true, false), (true, true)] {
            let (a, b) = (MatRef::row_major(&a, k), MatRef::row_major(&b, n));
            let mut c = before.clone();
            gemm_batched(batch, m, n, k, a, &|i| i * m * k, b, &|_| 0, &mut c, accumulate, parallel);
            let mut want = before.clone();
            for (i, want) in want.chunks_exact_mut(m * n).enumerate() {
                gemm(m, n, k, MatRef { offset: i * m * k, ..a }, b, want, n, accumulate, false);
            }
            assert_eq!(c, want);
        }
    }
}

/// Strides that lead outside the slice are refused before anything is read.
#[test]
fn out_of_bounds_is_refused() {
    let data = numbers::<f32>(20, 1);
    let whole = MatRef::row_major(&data, 5);
    let refused = |a: MatRef<f32>, b: MatRef<f32>, c: usize, ldc: usize| {
        let run = || gemm(4, 4, 5, a, b, &mut vec![0.0; c], ldc, false, false);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
    };
    assert!(!refused(whole, whole.t(), 16, 4));
    assert!(refused(whole.at(1, 0), whole.t(), 16, 4));
    assert!(refused(MatRef { rs: -5, ..whole }, whole.t(), 16, 4));
    assert!(refused(MatRef { rs: isize::MAX, cs: isize::MIN, ..whole }, whole.t(), 16, 4));
    assert!(refused(whole, MatRef { cs: 6, ..whole.t() }, 16, 4));
    assert!(refused(whole, whole.t(), 15, 4));
    assert!(refused(whole, whole.t(), 16, 3));
    assert!(refused(whole, whole.t(), 16, usize::MAX));
}

/// An operand that was packed before gives the product that it gives unpacked.
#[test]
fn packed_before() {
    packed_before_in::<f32>();
    packed_before_in::<bf16>();
}

fn packed_before_in<T: Case<Acc = f32>>() {
    for (m, n, k) in
        [(1, 1, 1), (3, 40, 7), (32, 128, 33), (50, 65, 600), (300, 70, 1301), (4, 0, 3), (0, 4, 3), (4, 5, 0)]
    {
        let (a, b) = (numbers::<T>(m * k, 1), numbers::<T>(k * n, 2));
        let a = MatRef::row_major(&a, k);
        for (b, t) in [(MatRef::row_major(&b, n), "rows"), (MatRef::row_major(&b, k).t(), "columns")] {
            let packed = Packed::new(level(), b, k, n);
            for (accumulate, parallel) in [(false, false), (true, true)] {
                let before = numbers::<f32>(m * (n + 3), 3);
                let (mut c, mut want) = (before.clone(), before);
                packed.product(m, a, &mut c, n + 3, accumulate, parallel);
                gemm_wide(m, n, k, a, b, &mut want, n + 3, accumulate, parallel);
                let close = |(x, y): (&f32, &f32)| (x - y).abs() <= 1e-6 * (k as f32 + 1.0);
                assert!(c.iter().zip(&want).all(close), "{m}×{n}×{k}, {t}");
                let (k1, n1) = (k / 2 + 1, n / 2 + 1);
                if k1 < k && n1 < n {
                    packed.part(m, (k1, n1), a, &mut c, n + 3, accumulate, parallel);
                    gemm_wide(m, n1, k1, a, b, &mut want, n + 3, accumulate, parallel);
                    assert!(c.iter().zip(&want).all(close), "{m}×{n1}×{k1} of {m}×{n}×{k}, {t}");
                }
            }
        }
    }
}

/// The bias is added to every row once, however the product is cut.
#[test]
fn with_a_bias() {
    fn run<T: Case>(m: usize, n: usize, k: usize) {
        let (a, b) = (numbers::<T>(m * k, 1), numbers::<T>(k * n, 2));
        let bias: Vec<T::Acc> = numbers::<T>(n, 3).iter().map(|b| b.widen()).collect();
        for level in levels() {
            for parallel in [false, true] {
                let mut c = numbers::<T>(m * n, 4);
                let (a_ref, b_ref) = (MatRef::row_major(&a, k), MatRef::row_major(&b, n));
                let x = Product { m, n, k, a: a_ref, b: b_ref, accumulate: false, bias: Some(&bias) };
                gemm_at(level, x, &mut c, n, parallel);
                for (i, j) in [(0, 0), (m / 2, n / 2), (m - 1, n - 1), (0, n - 1)] {
                    let terms = (0..k).map(|p| (a[i * k + p], b[p * n + j]));
                    let start = T::narrow(bias[j]);
                    element(c[i * n + j], start, terms, &format!("({i}, {j}) of {m}×{n}×{k} at {level:?}"));
                }
            }
        }
    }
    for (m, n, k) in [
        (1, 40, 9),
        (40, 1, 9),
        (1, 2100, 70),
        (1, 16500, 9),
        (2100, 1, 70),
        (5, 7, 0),
        (17, 33, 65),
        (300, 200, 700),
        (20, 3000, 90),
        (600, 40, 5000),
    ] {
        run::<f32>(m, n, k);
        run::<bf16>(m, n, k);
    }
}

/// Every way of multiplying 8-bit integers at every level, in sums of 32 bits, against sums of 64 bits.
fn check_wide(a: &[i8], b: &[i8], (m, n, k): (usize, usize, usize), b_columns: bool) {
    let b_ref = if b_columns { MatRef::row_major(b, k).t() } else { MatRef::row_major(b, n) };
    let x = Product { m, n, k, a: MatRef::row_major(a, k), b: b_ref, accumulate: false, bias: None };
    let want: Vec<i32> = (0..m * n)
        .map(|e| (0..k).map(|p| x.a.get(e / n, p) as i64 * b_ref.get(p, e % n) as i64).sum::<i64>() as i32)
        .collect();
    for level in levels() {
        for parallel in [false, true] {
            let at = format!("{m}×{n}×{k} at {level:?}");
            let mut c = vec![7; m * n];
            gemm_at(level, x, &mut c, n, parallel);
            assert!(c == want, "{at}");
            let mut c = vec![7; m * n];
            product::<scheme::Words, i8, i32>(level, x, &mut c, n, parallel);
            assert!(c == want, "pairs, {at}");
            if kernel::has_i8_quads(level) {
                let mut c = vec![7; m * n];
                product::<scheme::Quads, i8, i32>(level, x, &mut c, n, parallel);
                assert!(c == want, "fours, {at}");
            }
        }
    }
}

/// Sums of 8-bit integers are exact: extremes of both signs, sums as long as 32 bits hold and longer ones, which wrap,
/// depths that are no multiple of what a packed value holds, and several blocks of depth, rows and columns.
#[test]
fn int8_is_exact() {
    for k in [1, 2, 3, 4, 5, 2047, 2048, 2049, 131_071, 131_072, 140_001] {
        for (x, y) in [(-128, -128), (-128, 127), (127, -128), (127, 127), (-1, 1)] {
            check_wide(&vec![x; 2 * k], &vec![y; 2 * k], (2, 2, k), k % 2 == 0);
        }
    }
    assert_eq!(131_071 * 128 * 128, 2_147_467_264, "the longest sum that cannot overflow");
    for (m, n, k) in [
        (1, 1, 1),
        (1, 70, 65),
        (70, 1, 65),
        (7, 16, 15),
        (15, 17, 31),
        (14, 32, 64),
        (15, 33, 63),
        (29, 65, 130),
        (31, 31, 4099),
        (300, 70, 600),
        (130, 2100, 70),
        (257, 300, 1030),
    ] {
        for b_columns in [false, true] {
            check_wide(&numbers::<i8>(m * k, 1), &numbers::<i8>(k * n, 2), (m, n, k), b_columns);
        }
    }
}
