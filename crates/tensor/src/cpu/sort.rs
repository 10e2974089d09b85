//! Order: sort, top-k, argmax and argmin along rows.

use crate::cpu::parallel::*;

/// A type with PyTorch's order: NaN is above every number, all NaN are equal, and so are 0 and −0.
///
/// Every type is sorted by its keys, so that sorting and selection are compiled once and not for each type.
pub trait TotalOrder: Copy + Send + Sync + 'static {
    /// A whole number for each value, in the same order.
    fn key(self) -> u64;
    /// Is it NaN?
    fn is_nan(self) -> bool;
}

macro_rules! total_order_float {
    ($($t:ty)*) => {$(
        impl TotalOrder for $t {
            #[inline]
            fn key(self) -> u64 {
                if self != self {
                    return u64::MAX;
                }
                // −0 + 0 is 0. Of two negative numbers the one with the larger bits is below.
                let bits = (self as f64 + 0.0).to_bits();
                if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
            }
            #[inline]
            fn is_nan(self) -> bool {
                self != self
            }
        }
    )*};
}
total_order_float!(f32 f64);

macro_rules! total_order_integer {
    ($($t:ty)*) => {$(
        impl TotalOrder for $t {
            #[inline]
            fn key(self) -> u64 {
                self as i64 as u64 ^ 1 << 63
            }
            #[inline]
            fn is_nan(self) -> bool {
                false
            }
        }
    )*};
}
total_order_integer!(i64 i32 i8 u8);

/// A key and its position.
type Pair = (u64, i64);

/// Each element's key and position, the keys the other way round if `descending`.
#[inline]
fn pairs<T: TotalOrder>(x: &[T], descending: bool) -> impl Iterator<Item = Pair> {
    let flip = if descending { u64::MAX } else { 0 };
    x.iter().zip(0..).map(move |(v, i)| (v.key() ^ flip, i))
}

/// Sorts by the keys; equal ones keep their order.
fn sort_pairs(pairs: &mut [Pair], whole_pool: bool) {
    // Both sorts are stable, so they agree.
    if whole_pool {
        rayon::slice::ParallelSliceMut::par_sort_by_key(pairs, |p| p.0);
    } else {
        pairs.sort_by_key(|p| p.0);
    }
}

/// Keeps the `k` first in order of keys and positions. Positions differ: an unstable selection has one outcome.
fn keep_first(pairs: &mut Vec<Pair>, k: usize) {
    pairs.select_nth_unstable(k - 1);
    pairs.truncate(k);
}

/// The elements of `x` that `pairs` has, and their positions.
fn unzip<T: Copy>(pairs: &[Pair], x: &[T], values: &mut [T], indices: &mut [i64]) {
    for ((&(_, at), v), i) in pairs.iter().zip(values).zip(indices) {
        (*v, *i) = (x[at as usize], at);
    }
}

/// Rows of at least this length are sorted by the whole thread pool, if there are few of them.
const LONG_ROW: usize = 1 << 15;

/// Sorts each row of `x [rows, n]` into `values [rows, n]`, with the sorted elements' positions in `indices [rows, n]`.
///
/// Stable: equal elements keep their order, in either direction. NaN is above every number: last in ascending order, first
/// in descending.
///
/// # Panics
/// If a slice has not `rows · n` elements.
pub fn sort<T: TotalOrder>(rows: usize, n: usize, descending: bool, x: &[T], values: &mut [T], indices: &mut [i64]) {
    assert_eq!(x.len(), rows * n, "input length");
    assert_eq!((values.len(), indices.len()), (x.len(), x.len()), "output lengths");
    if x.is_empty() {
        return;
    }
    let whole_pool = n >= LONG_ROW && rows < 16;
    // Short rows share their memory.
    let part = n * (4096 / n).max(1);
    let outputs = values.par_chunks_mut(part).zip(indices.par_chunks_mut(part)).zip(x.par_chunks(part));
    outputs.for_each(|((values, indices), x)| {
        let mut sorted = Vec::with_capacity(n);
        for ((values, indices), x) in values.chunks_mut(n).zip(indices.chunks_mut(n)).zip(x.chunks(n)) {
            sorted.clear();
            sorted.extend(pairs(x, descending));
            sort_pairs(&mut sorted, whole_pool);
            unzip(&sorted, x, values, indices);
        }
    });
}

/// The `k` largest (or smallest) elements of each row of `x [rows, n]`, best first, in `values [rows, k]`, with their
/// positions in `indices [rows, k]`. NaN counts as the largest. Of equal elements the earlier comes first.
///
/// One pass over the row, that keeps `2k` candidates: `O(n + k log k)` for data in random order.
///
/// # Panics
/// If `k > n`, or a slice has not the length that its shape says.
pub fn topk<T: TotalOrder>(
    rows: usize,
    n: usize,
    k: usize,
    largest: bool,
    x: &[T],
    values: &mut [T],
    indices: &mut [i64],
) {
    assert!(k <= n, "topk: k = {k} of {n} elements");
    assert_eq!(x.len(), rows * n, "input length");
    assert_eq!((values.len(), indices.len()), (rows * k, rows * k), "output lengths");
    if values.is_empty() {
        return;
    }
    let capacity = n.min(2 * k.max(32));
    let outputs = values.par_chunks_mut(k).zip(indices.par_chunks_mut(k)).zip(x.par_chunks(n));
    let outputs = outputs.with_min_len((4096 / n).max(1));
    outputs.for_each(|((values, indices), x)| {
        let mut candidates = pairs(x, largest);
        let mut kept: Vec<Pair> = candidates.by_ref().take(capacity).collect();
        let mut worst = u64::MAX; // the k-th best so far; set before it counts
        for pair in candidates {
            if kept.len() >= capacity {
                keep_first(&mut kept, k);
                worst = kept[k - 1].0;
            }
            // An equal element comes later than the k-th best, so it is not better.
            if pair.0 < worst {
                kept.push(pair);
            }
        }
        kept.sort_unstable();
        unzip(&kept[..k], x, values, indices);
    });
}

/// The position of each row's maximum in `x [rows, n]`: the first of equals; the first NaN, if there is one.
///
/// # Panics
/// If `x` has not `rows · n` elements, `indices` not `rows`, or there are rows and `n = 0`.
pub fn argmax<T: TotalOrder>(rows: usize, n: usize, x: &[T], indices: &mut [i64]) {
    arg(rows, n, x, indices, false);
}

/// The position of each row's minimum in `x [rows, n]`: the first of equals; the first NaN, if there is one.
///
/// # Panics
/// As [`argmax`].
pub fn argmin<T: TotalOrder>(rows: usize, n: usize, x: &[T], indices: &mut [i64]) {
    arg(rows, n, x, indices, true);
}

fn arg<T: TotalOrder>(rows: usize, n: usize, x: &[T], indices: &mut [i64], minimum: bool) {
    assert_eq!(x.len(), rows * n, "input length");
    assert_eq!(indices.len(), rows, "output length");
    if rows == 0 {
        return;
    }
    assert!(n > 0, "argmax and argmin of an empty row");
    let min_rows = (1usize << 13).div_ceil(n);
    indices.par_iter_mut().zip(x.par_chunks(n)).with_min_len(min_rows).for_each(|(index, row)| {
        // NaN is first, also of a minimum.
        let rank = |v: T| if minimum && !v.is_nan() { !v.key() } else { v.key() };
        let (mut best, mut highest) = (0, rank(row[0]));
        for (i, &v) in row.iter().enumerate() {
            let rank = rank(v);
            if rank > highest {
                (best, highest) = (i, rank);
            }
        }
        *index = best as i64;
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::test_util::{assert_same_for_any_thread_count, integers};
    use proptest::prelude::*;

    /// Values with ties, NaN, infinities and both zeros.
    fn awkward(n: usize, seed: u64) -> Vec<f64> {
        let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0, 2.5, -f64::NAN];
        integers(n, seed, 14).into_iter().map(|i| *special.get(i as usize).unwrap_or(&(i as f64))).collect()
    }

    fn sorted<T: TotalOrder>(rows: usize, n: usize, descending: bool, x: &[T]) -> (Vec<T>, Vec<i64>) {
        let (mut values, mut indices) = (x.to_vec(), vec![-1; x.len()]);
        sort(rows, n, descending, x, &mut values, &mut indices);
        (values, indices)
    }

    /// Insertion sort of the positions: stable, by the definition.
    fn naive(row: &[f64], descending: bool) -> Vec<i64> {
        let above = |a: f64, b: f64| (a.is_nan() && !b.is_nan()) || a > b;
        let mut order: Vec<i64> = Vec::new();
        for i in 0..row.len() {
            let v = row[i];
            let after = |&j: &i64| {
                let u = row[j as usize];
                if descending { above(v, u) } else { above(u, v) }
            };
            let at = order.iter().position(after).unwrap_or(order.len());
            order.insert(at, i as i64);
        }
        order
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn sort_and_topk_match_insertion_sort(rows in 0usize..4, n in 1usize..200, k in 0usize..200, seed: u64) {
            let x = awkward(rows * n, seed);
            let k = k.min(n);
            for descending in [false, true] {
                let (values, indices) = sorted(rows, n, descending, &x);
                let (mut top, mut at) = (vec![0.0; rows * k], vec![-1; rows * k]);
                topk(rows, n, k, descending, &x, &mut top, &mut at);
                for r in 0..rows {
                    let row = &x[r * n..][..n];
                    let expected = naive(row, descending);
                    prop_assert_eq!(&indices[r * n..][..n], &expected[..]);
                    prop_assert_eq!(&at[r * k..][..k], &expected[..k]);
                    for (j, &i) in expected.iter().enumerate() {
                        prop_assert_eq!(values[r * n + j].to_bits(), row[i as usize].to_bits());
                        prop_assert!(j >= k || top[r * k + j].to_bits() == row[i as usize].to_bits());
                    }
                }
            }
        }

        #[test]
        fn arg_matches_the_definition(rows in 0usize..4, n in 1usize..20, seed: u64) {
            let x = awkward(rows * n, seed);
            let (mut high, mut low) = (vec![-1; rows], vec![-1; rows]);
            argmax(rows, n, &x, &mut high);
            argmin(rows, n, &x, &mut low);
            for r in 0..rows {
                let row = &x[r * n..][..n];
                let nan = row.iter().position(|v| v.is_nan());
                let first = |best: f64| nan.unwrap_or_else(|| row.iter().position(|&v| v == best).unwrap()) as i64;
                prop_assert_eq!(high[r], first(row.iter().copied().fold(f64::NEG_INFINITY, f64::max)));
                prop_assert_eq!(low[r], first(row.iter().copied().fold(f64::INFINITY, f64::min)));
            }
        }
    }

    #[test]
    fn integers_sort() {
        assert_eq!(sorted(2, 3, false, &[3i64, 1, 1, i64::MAX, i64::MIN, 0]).1, [1, 2, 0, 1, 2, 0]);
        assert_eq!(sorted(1, 4, true, &[0u8, 255, 7, 255]), (vec![255, 255, 7, 0], vec![1, 3, 2, 0]));
        let (mut v, mut i) = ([0i32; 2], [0; 2]);
        topk(1, 4, 2, false, &[4i32, -4, 9, -4], &mut v, &mut i);
        assert_eq!((v, i), ([-4, -4], [1, 3]));
    }

    #[test]
    fn the_largest_and_smallest_numbers_of_a_type() {
        let (mut high, mut low) = ([0], [0]);
        for x in [[i64::MAX, i64::MIN, 0], [0, i64::MAX, i64::MIN]] {
            argmax(1, 3, &x, &mut high);
            argmin(1, 3, &x, &mut low);
            assert_eq!((x[high[0] as usize], x[low[0] as usize]), (i64::MAX, i64::MIN));
            let (mut v, mut i) = ([0; 2], [0; 2]);
            topk(1, 3, 2, false, &x, &mut v, &mut i);
            assert_eq!(v, [i64::MIN, 0]);
        }
        let x = [f32::MIN_POSITIVE, -f32::MAX, f32::INFINITY, f32::NAN, -0.0, f32::NEG_INFINITY, 0.0, -1e-45];
        assert_eq!(sorted(1, 8, false, &x).1, [5, 1, 7, 4, 6, 0, 2, 3]);
        assert_eq!(sorted(1, 8, true, &x).1, [3, 2, 0, 4, 6, 7, 1, 5]);
    }

    #[test]
    fn worst_case_for_selection() {
        // Every element is better than all before it.
        let n = 10_000;
        let x: Vec<i64> = (0..n as i64).collect();
        let (mut v, mut i) = (vec![0; 5], vec![0; 5]);
        topk(1, n, 5, true, &x, &mut v, &mut i);
        assert_eq!(v, [9999, 9998, 9997, 9996, 9995]);
        assert_eq!(v, i);
    }

    #[test]
    fn long_rows_are_the_same_for_any_thread_count() {
        let x: Vec<f32> = integers(3 * LONG_ROW, 5, 1000).into_iter().map(|v| v as f32).collect();
        assert_same_for_any_thread_count(|| sorted(3, LONG_ROW, true, &x));
        let (values, indices) = sorted(3, LONG_ROW, true, &x);
        assert!(values[..LONG_ROW].windows(2).zip(indices.windows(2)).all(|(v, i)| v[0] > v[1] || i[0] < i[1]));
    }

    #[test]
    fn empty() {
        assert_eq!(sorted::<f32>(0, 5, false, &[]).0.len(), 0);
        assert_eq!(sorted::<f32>(5, 0, false, &[]).0.len(), 0);
        topk::<f32>(2, 3, 0, true, &[0.0; 6], &mut [], &mut []);
        argmax::<f32>(0, 0, &[], &mut []);
    }
}
