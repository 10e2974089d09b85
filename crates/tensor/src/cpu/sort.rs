//! Order: sort, top-k, argmax and argmin along rows.

use crate::cpu::parallel::*;
use std::cmp::Ordering;

/// A type with PyTorch's order: NaN is above every number, all NaN are equal, and so are 0 and −0.
pub trait TotalOrder: Copy + Send + Sync + 'static {
    /// The order of two values.
    fn order(&self, other: &Self) -> Ordering;
    /// Is it NaN?
    fn is_nan(&self) -> bool;
}

macro_rules! total_order_float {
    ($($t:ty)*) => {$(
        impl TotalOrder for $t {
            #[inline]
            fn order(&self, other: &Self) -> Ordering {
                self.partial_cmp(other).unwrap_or_else(|| <$t>::is_nan(*self).cmp(&<$t>::is_nan(*other)))
            }
            #[inline]
            fn is_nan(&self) -> bool {
                <$t>::is_nan(*self)
            }
        }
    )*};
}
total_order_float!(f32 f64);

macro_rules! total_order_integer {
    ($($t:ty)*) => {$(
        impl TotalOrder for $t {
            #[inline]
            fn order(&self, other: &Self) -> Ordering {
                self.cmp(other)
            }
            #[inline]
            fn is_nan(&self) -> bool {
                false
            }
        }
    )*};
}
total_order_integer!(i64 i32 i8 u8);

/// The order of two values, the other way round if `descending`.
#[inline]
fn directed<T: TotalOrder>(a: &T, b: &T, descending: bool) -> Ordering {
    if descending { b.order(a) } else { a.order(b) }
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
    let row = |pairs: &mut Vec<(T, i64)>, x: &[T], values: &mut [T], indices: &mut [i64]| {
        pairs.clear();
        pairs.extend(x.iter().copied().zip(0..));
        // Both sorts are stable, so they agree.
        match (whole_pool, descending) {
            (true, _) => {
                rayon::slice::ParallelSliceMut::par_sort_by(&mut pairs[..], |a, b| directed(&a.0, &b.0, descending))
            }
            (false, false) => pairs.sort_by(|a, b| a.0.order(&b.0)),
            (false, true) => pairs.sort_by(|a, b| b.0.order(&a.0)),
        }
        for ((pair, v), i) in pairs.iter().zip(values).zip(indices) {
            (*v, *i) = *pair;
        }
    };
    // Short rows share their memory.
    let part = n * (4096 / n).max(1);
    let outputs = values.par_chunks_mut(part).zip(indices.par_chunks_mut(part)).zip(x.par_chunks(part));
    outputs.for_each(|((values, indices), x)| {
        let mut pairs = Vec::with_capacity(n);
        for ((values, indices), x) in values.chunks_mut(n).zip(indices.chunks_mut(n)).zip(x.chunks(n)) {
            row(&mut pairs, x, values, indices);
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
    // A strict total order, since the positions differ: an unstable selection has one outcome.
    let order = |a: &(T, i64), b: &(T, i64)| directed(&a.0, &b.0, largest).then(a.1.cmp(&b.1));
    let capacity = n.min(2 * k.max(32));
    let outputs = values.par_chunks_mut(k).zip(indices.par_chunks_mut(k)).zip(x.par_chunks(n));
    let outputs = outputs.with_min_len((4096 / n).max(1));
    outputs.for_each(|((values, indices), x)| {
        let (head, tail) = x.split_at(capacity);
        let mut kept: Vec<(T, i64)> = head.iter().copied().zip(0..).collect();
        let mut worst = None; // the k-th best so far, once known
        for (&v, i) in tail.iter().zip(capacity as i64..) {
            if kept.len() >= capacity {
                kept.select_nth_unstable_by(k - 1, order);
                kept.truncate(k);
                worst = Some(kept[k - 1].0);
            }
            // An equal element comes later than the k-th best, so it is not better.
            if worst.is_none_or(|w| directed(&v, &w, largest) == Ordering::Less) {
                kept.push((v, i));
            }
        }
        kept.sort_unstable_by(order);
        for ((pair, v), i) in kept.iter().zip(values).zip(indices) {
            (*v, *i) = *pair;
        }
    });
}

/// The position of each row's maximum in `x [rows, n]`: the first of equals; the first NaN, if there is one.
///
/// # Panics
/// If `x` has not `rows · n` elements, `indices` not `rows`, or there are rows and `n = 0`.
pub fn argmax<T: TotalOrder>(rows: usize, n: usize, x: &[T], indices: &mut [i64]) {
    arg(rows, n, x, indices, Ordering::Greater);
}

/// The position of each row's minimum in `x [rows, n]`: the first of equals; the first NaN, if there is one.
///
/// # Panics
/// As [`argmax`].
pub fn argmin<T: TotalOrder>(rows: usize, n: usize, x: &[T], indices: &mut [i64]) {
    arg(rows, n, x, indices, Ordering::Less);
}

fn arg<T: TotalOrder>(rows: usize, n: usize, x: &[T], indices: &mut [i64], better: Ordering) {
    assert_eq!(x.len(), rows * n, "input length");
    assert_eq!(indices.len(), rows, "output length");
    if rows == 0 {
        return;
    }
    assert!(n > 0, "argmax and argmin of an empty row");
    let min_rows = (1usize << 13).div_ceil(n);
    indices.par_iter_mut().zip(x.par_chunks(n)).with_min_len(min_rows).for_each(|(index, row)| {
        let mut best = 0;
        for (i, v) in row.iter().enumerate() {
            if v.is_nan() {
                best = i;
                break;
            }
            if v.order(&row[best]) == better {
                best = i;
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
